//! Finds a plugin's file, makes sure that only its owner could have put it there, and loads it: once per process, for ever.

use std::collections::HashMap;
use std::ffi::c_int;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use jsonschema::Validator;
use serde_json::Value;
use tailwater_abi::{TW_ENTRY_SYMBOL, TW_OK, tw_plugin, tw_plugin_entry, tw_str, tw_validate_args};
use thiserror::Error;

use super::descriptor::{Descriptor, Functions, Refusal, verify};
use super::elf::{self, FileFault};
use super::options::{self, OptionsError, nearest};
use super::text::Sink;

const SUFFIX: &str = if cfg!(target_os = "macos") { ".dylib" } else { ".so" };
const PREFIX: &str = "libtailwater_";

/// Why a plugin was not loaded. A retry never helps: someone has to change a file or the config.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The name could lead out of the folder.
    #[error("plugin = {0:?}: a plugin's name is made of a-z, 0-9, _ and -")]
    Name(String),
    /// Not in the folder.
    #[error("no plugin {plugin:?} in {}: {} is not there; {there}", dir.display(), file_name(plugin))]
    Missing {
        /// The name asked for.
        plugin: String,
        /// Where it was looked for.
        dir: PathBuf,
        /// What is in the folder instead.
        there: String,
    },
    /// The folder or file cannot be looked at.
    #[error("read {}: {error}", path.display())]
    Read {
        /// What was read.
        path: PathBuf,
        /// Why it failed.
        error: io::Error,
    },
    /// A folder, a socket, …
    #[error("{} is not a regular file", .0.display())]
    NotFile(PathBuf),
    /// A file whose name says no plugin's name.
    #[error("{} is not named {PREFIX}<plugin>{SUFFIX}", .0.display())]
    FileName(PathBuf),
    /// A symlink out of the folder.
    #[error("{} leads to {}, which is outside the folder: copy the library there instead", link.display(), target.display())]
    Outside {
        /// What was found in the folder.
        link: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// Anyone could replace it.
    #[error("{} is world-writable (mode {mode:o}), so anyone could put code into the daemon: chmod o-w {}", path.display(), path.display())]
    WorldWritable {
        /// The file or its folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Someone else could replace it.
    #[error("{} belongs to uid {owner}, not to root or to the daemon's uid {own}: chown it", path.display())]
    Owner {
        /// The file or its folder.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who runs the daemon.
        own: u32,
    },
    /// Not a library this host can load.
    #[error("{}: {fault}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: FileFault,
    },
    /// The dynamic loader refused it, as for a symbol that nothing defines.
    #[error("load {}: {reason}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The loader's words.
        reason: String,
    },
    /// It is a library, but the handshake failed.
    #[error("{}: {refusal}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// Which field, and both values.
        refusal: Refusal,
    },
}

/// A loaded and verified plugin library. Cheap to clone; never unloaded.
#[derive(Clone)]
pub struct Library(Arc<Loaded>);

struct Loaded {
    descriptor: Descriptor,
    functions: Functions,
    validator: Validator,
}

/// Loaded libraries by device and inode, so that one file is loaded once whatever it is called.
static LOADED: Mutex<Option<HashMap<(u64, u64), Library>>> = Mutex::new(None);

/// Where plugins are looked for when `plugins.dir` is absent: `plugins/` beside the running executable, else its own folder.
///
/// # Errors
/// When the system does not say where the executable is.
pub fn default_dir() -> io::Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let own = exe.parent().unwrap_or(Path::new("/"));
    let plugins = own.join("plugins");
    Ok(if plugins.is_dir() { plugins } else { own.to_owned() })
}

impl Library {
    /// Whether it is the very same file, loaded once: a file that was replaced meanwhile is another library.
    pub fn is_same(&self, other: &Library) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Loads `libtailwater_<plugin>.so` from `dir`, and from nowhere else.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn load(dir: &Path, plugin: &str) -> Result<Self, LoadError> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
        if plugin.is_empty() || !plugin.chars().all(allowed) {
            return Err(LoadError::Name(plugin.to_owned()));
        }
        let path = dir.join(file_name(plugin));
        if let Err(error) = path.symlink_metadata() {
            return Err(match error.kind() {
                io::ErrorKind::NotFound => missing(dir, plugin),
                _ => LoadError::Read { path, error },
            });
        }
        Self::open_file(&path)
    }

    /// Loads one file. Its name has to be `libtailwater_<plugin>.so`.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn open_file(path: &Path) -> Result<Self, LoadError> {
        let real = check_place(path)?;
        let named = |path: &Path| plugin_of(path).ok_or_else(|| LoadError::FileName(path.to_owned()));
        let name = named(path)?;
        let metadata = metadata_of(&real)?;
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = loaded.get_or_insert_default();
        if let Some(library) = loaded.get(&(metadata.dev(), metadata.ino())) {
            return Ok(library.clone());
        }
        elf::check(&real)
            .map_err(|error| LoadError::Read { path: real.clone(), error })?
            .map_err(|fault| LoadError::File { path: real.clone(), fault })?;
        let plugin = open(&real)?;
        // SAFETY: from the library's entry function; the library is never unloaded.
        let library = unsafe { Self::from_plugin(plugin, &real, &name) }
            .map_err(|refusal| LoadError::Refused { path: real.clone(), refusal })?;
        loaded.insert((metadata.dev(), metadata.ino()), library.clone());
        Ok(library)
    }

    /// Verifies a descriptor that is in memory already.
    ///
    /// # Safety
    /// As for [`verify`]: `plugin` is null or a descriptor that lives as long as the process.
    pub(crate) unsafe fn from_plugin(plugin: *const tw_plugin, path: &Path, name: &str) -> Result<Self, Refusal> {
        // SAFETY: passed on from the caller.
        let (descriptor, functions) = unsafe { verify(plugin, path, name) }?;
        let validator = jsonschema::validator_for(&descriptor.options_schema)
            .map_err(|error| Refusal::Schema { reason: error.to_string() })?;
        Ok(Self(Arc::new(Loaded { descriptor, functions, validator })))
    }

    /// What the library says of itself.
    pub fn descriptor(&self) -> &Descriptor {
        &self.0.descriptor
    }

    /// Checks an output's options: against the schema, then by the plugin's own `validate`. Connects nothing.
    ///
    /// # Errors
    /// [`OptionsError`] with every fault the schema finds, or the plugin's own words.
    pub fn check_options(&self, options: &Value) -> Result<(), OptionsError> {
        options::check(&self.0.validator, &self.0.descriptor.options_schema, options)?;
        let Some(validate) = self.0.functions.validate else { return Ok(()) };
        let text = options.to_string();
        let mut sink = Sink::default();
        let error = sink.border();
        let args = tw_validate_args {
            struct_size: size_of::<tw_validate_args>() as u32,
            reserved0: 0,
            output: tw_str::NONE,
            options_json: tw_str::new(&text),
            error: &raw const error,
        };
        // SAFETY: everything in `args` lives longer than the call; the function may be called on any thread.
        let status = unsafe { validate(&raw const args) };
        if status == TW_OK {
            return Ok(());
        }
        let reason = sink.text_or(&format!("the plugin refuses them with status {status}"));
        Err(OptionsError { faults: vec![format!("options: {reason}")] })
    }

    pub(crate) fn functions(&self) -> &Functions {
        &self.0.functions
    }
}

/// `libtailwater_<plugin>.so`, with Cargo's `_` for `-`.
pub(super) fn file_name(plugin: &str) -> String {
    format!("{PREFIX}{}{SUFFIX}", plugin.replace('-', "_"))
}

fn plugin_of(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
    (!name.is_empty()).then(|| name.to_owned())
}

fn missing(dir: &Path, plugin: &str) -> LoadError {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) => return LoadError::Read { path: dir.to_owned(), error },
    };
    let mut names: Vec<String> = entries.flatten().filter_map(|entry| plugin_of(&entry.path())).collect();
    names.sort();
    let there = match nearest(plugin, &names).cloned() {
        _ if names.is_empty() => "there is no plugin at all; set plugins.dir".to_owned(),
        Some(near) => format!("did you mean {near:?}? there are {}", names.join(", ")),
        None => format!("there are {}", names.join(", ")),
    };
    LoadError::Missing { plugin: plugin.to_owned(), dir: dir.to_owned(), there }
}

/// Resolves symlinks and makes sure that nobody but root and the daemon's own user can change the file or swap it.
fn check_place(path: &Path) -> Result<PathBuf, LoadError> {
    let read = |path: &Path, error| LoadError::Read { path: path.to_owned(), error };
    let real = path.canonicalize().map_err(|error| read(path, error))?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let dir = parent.canonicalize().map_err(|error| read(parent, error))?;
    if !real.starts_with(&dir) {
        return Err(LoadError::Outside { link: path.to_owned(), target: real });
    }
    if !metadata_of(&real)?.is_file() {
        return Err(LoadError::NotFile(real));
    }
    check_owner(&dir)?;
    // A link may lead into a folder below; that one counts as well.
    if let Some(below) = real.parent().filter(|below| *below != dir) {
        check_owner(below)?;
    }
    check_owner(&real)?;
    Ok(real)
}

fn check_owner(path: &Path) -> Result<(), LoadError> {
    let metadata = metadata_of(path)?;
    let mode = metadata.mode() & 0o7777;
    if mode & 0o002 != 0 {
        return Err(LoadError::WorldWritable { path: path.to_owned(), mode });
    }
    // SAFETY: reads a number of this process, cannot fail.
    let own = unsafe { libc::geteuid() };
    let owner = metadata.uid();
    if owner != 0 && owner != own {
        return Err(LoadError::Owner { path: path.to_owned(), owner, own });
    }
    Ok(())
}

fn metadata_of(path: &Path) -> Result<std::fs::Metadata, LoadError> {
    path.metadata().map_err(|error| LoadError::Read { path: path.to_owned(), error })
}

/// Opens the library for good and asks it for its descriptor.
fn open(path: &Path) -> Result<*const tw_plugin, LoadError> {
    // All symbols now, so that a missing one is an error here and not a crash later. Local, so that two plugins' equal
    // symbols do not meet. Never deleted: threads of a plugin may outlive every instance.
    let flags: c_int = libc::RTLD_NOW | libc::RTLD_LOCAL | libc::RTLD_NODELETE;
    let fault = |error: libloading::Error| LoadError::Open { path: path.to_owned(), reason: reason_of(&error, path) };
    // SAFETY: the library's initialisers run. The file is the operator's choice and only the operator could have put it there.
    let library = unsafe { libloading::os::unix::Library::open(Some(path), flags) }.map_err(fault)?;
    let symbol = format!("{TW_ENTRY_SYMBOL}\0");
    // SAFETY: the symbol's name is versioned with its type.
    let entry = unsafe { library.get::<tw_plugin_entry>(symbol.as_bytes()) }.map_err(fault)?;
    // SAFETY: the function has no precondition.
    let plugin = unsafe { entry() };
    // Not closed, see `flags`.
    std::mem::forget(library);
    Ok(plugin)
}

/// The loader's words without the path, which the error says already.
fn reason_of(error: &libloading::Error, path: &Path) -> String {
    use std::error::Error as _;
    let text = match error.source() {
        Some(source) => source.to_string(),
        None => error.to_string(),
    };
    text.trim_start_matches(&format!("{}: ", path.display())).to_owned()
}
