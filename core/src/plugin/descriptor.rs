//! What a library says of itself, verified and copied out. After this nothing reads the library's own structs again.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tailwater_abi::{
    TW_ABI_MAJOR, TW_ABI_MINOR, TW_BUILD_DEBUG, TW_BUILD_PANIC_ABORT, TW_BUILD_PANIC_UNWIND, TW_CAP_BROADCAST,
    TW_CAP_WANTS_JSON, TW_MAGIC, TW_PLUGIN_SIZE_MIN, TW_VTABLE_SIZE_MIN, tw_batch, tw_copy, tw_create_args,
    tw_instance, tw_plugin, tw_progress, tw_status, tw_validate_args, tw_vtable,
};
use thiserror::Error;

use super::text::{TextFault, copy_strict};

const NAME_BYTES_MAX: usize = 64;
const TEXT_BYTES_MAX: usize = 1024;
const SCHEMA_BYTES_MAX: usize = 1 << 20;
/// A plugin that asks for more events in a batch gets this many.
const BATCH_EVENTS_MAX: u32 = 100_000;

/// What a library says of itself.
#[derive(Debug, Clone)]
pub struct Descriptor {
    /// Name of the plugin, as in `plugin = "…"`.
    pub name: String,
    /// Version of the plugin.
    pub version: String,
    /// What it was built with. Only reported.
    pub sdk: String,
    /// One sentence for people.
    pub summary: String,
    /// JSON Schema of `[outputs.NAME.options]`.
    pub options_schema: Value,
    /// No durable position: the output's own clients carry theirs.
    pub broadcast: bool,
    /// Asks for the JSON of nearly every event.
    pub wants_json: bool,
    /// Most events it wants in a batch where the operator says nothing.
    pub batch_events_max: Option<u32>,
    /// Major and minor of the border it was built against.
    pub abi: (u16, u16),
    /// Built without optimisation.
    pub debug_build: bool,
    /// The file it was loaded from, symlinks resolved.
    pub path: PathBuf,
}

/// Why a library that could be opened is refused: a broken handshake. Each names the field and both values.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    /// The entry function gave nothing.
    #[error("tailwater_plugin_v{TW_ABI_MAJOR}() returned a null descriptor")]
    NullDescriptor,
    /// Not a Tailwater descriptor.
    #[error("magic is {found:#018x}, expected {TW_MAGIC:#018x}: this is not a Tailwater plugin")]
    Magic {
        /// The number found.
        found: u64,
    },
    /// A struct shorter than the first version of this major.
    #[error("{what}.struct_size is {found}, at least {needed} is needed")]
    StructSize {
        /// The struct.
        what: &'static str,
        /// What it says.
        found: u32,
        /// The first version's size.
        needed: u32,
    },
    /// Another border.
    #[error("abi_major is {found}, this host speaks {TW_ABI_MAJOR}: build the plugin against a matching tailwater-sdk")]
    Major {
        /// The plugin's.
        found: u16,
    },
    /// The host is too old.
    #[error("min_host_minor is {needs}, this host is {TW_ABI_MAJOR}.{TW_ABI_MINOR}: upgrade tailwater")]
    HostTooOld {
        /// What the plugin needs.
        needs: u16,
    },
    /// A panic would end the daemon.
    #[error(
        "it was built with panic = \"abort\", so that a panic in it would end the whole daemon: set panic = \"unwind\" \
         (or remove the panic line) in [profile.release] of the Cargo.toml it is built with, and build it again"
    )]
    PanicAbort,
    /// Neither panic flag is set.
    #[error(
        "build_flags is {found:#x}, which lacks TW_BUILD_PANIC_UNWIND ({TW_BUILD_PANIC_UNWIND:#x}): set it in tw_plugin"
    )]
    BuildFlags {
        /// What it says.
        found: u32,
    },
    /// A text that cannot be taken.
    #[error("{field} {fault}")]
    Text {
        /// The field of `tw_plugin`.
        field: &'static str,
        /// What is wrong with it.
        fault: String,
    },
    /// A required text is empty.
    #[error("{field} is empty")]
    Empty {
        /// The field of `tw_plugin`.
        field: &'static str,
    },
    /// The schema of the options cannot be used.
    #[error("options_schema is not a JSON Schema: {reason}")]
    Schema {
        /// Why not.
        reason: String,
    },
    /// Renamed file, or two plugins mixed up.
    #[error("name is {found:?}, the file says {file:?}: rename the file to {}", super::loader::file_name(found))]
    Name {
        /// What the descriptor says.
        found: String,
        /// What the file's name says.
        file: String,
    },
    /// No vtable.
    #[error("vtable is null")]
    NullVtable,
    /// A function every plugin must have.
    #[error("vtable.{name} is null, every plugin must have it")]
    Function {
        /// The function.
        name: &'static str,
    },
}

pub(crate) type ValidateFn = unsafe extern "C" fn(*const tw_validate_args) -> tw_status;
pub(crate) type CreateFn = unsafe extern "C" fn(*const tw_create_args, *mut *mut tw_instance) -> tw_status;
pub(crate) type StartFn = unsafe extern "C" fn(*mut tw_instance, u64) -> tw_status;
pub(crate) type DeliverFn = unsafe extern "C" fn(*mut tw_instance, *const tw_batch, u64) -> tw_status;
pub(crate) type StopFn = unsafe extern "C" fn(*mut tw_instance, u64, u64) -> tw_status;
pub(crate) type DestroyFn = unsafe extern "C" fn(*mut tw_instance);
pub(crate) type ProgressFn = unsafe extern "C" fn(*mut tw_instance, *const tw_progress);

/// A plugin's functions, the required ones known to be there.
#[derive(Clone, Copy)]
pub(crate) struct Functions {
    pub validate: Option<ValidateFn>,
    pub create: CreateFn,
    pub start: Option<StartFn>,
    pub deliver: DeliverFn,
    pub stop: Option<StopFn>,
    pub destroy: DestroyFn,
    pub progress: Option<ProgressFn>,
}

/// Verifies a descriptor and copies it.
///
/// # Errors
/// See [`Refusal`]. A retry never helps.
///
/// # Safety
/// `plugin` is null, or what a library's entry function returned: a descriptor that lives as long as the process.
pub(crate) unsafe fn verify(
    plugin: *const tw_plugin,
    path: &Path,
    file_name: &str,
) -> Result<(Descriptor, Functions), Refusal> {
    if plugin.is_null() {
        return Err(Refusal::NullDescriptor);
    }
    // SAFETY: the first two fields are those of every version, so they are read before anything is believed.
    let (magic, size) =
        unsafe { ((&raw const (*plugin).magic).read_unaligned(), (&raw const (*plugin).struct_size).read_unaligned()) };
    if magic != TW_MAGIC {
        return Err(Refusal::Magic { found: magic });
    }
    // SAFETY: `abi_major` follows `struct_size` in every major, so that a foreign one can be named.
    let major = unsafe { (&raw const (*plugin).abi_major).read_unaligned() };
    if major != TW_ABI_MAJOR {
        return Err(Refusal::Major { found: major });
    }
    if size < TW_PLUGIN_SIZE_MIN {
        return Err(Refusal::StructSize { what: "tw_plugin", found: size, needed: TW_PLUGIN_SIZE_MIN });
    }
    // SAFETY: the plugin says that `size` bytes are there.
    let plugin = unsafe { tw_copy(plugin, size) };
    if plugin.min_host_minor > TW_ABI_MINOR {
        return Err(Refusal::HostTooOld { needs: plugin.min_host_minor });
    }
    if plugin.build_flags & TW_BUILD_PANIC_ABORT != 0 {
        return Err(Refusal::PanicAbort);
    }
    if plugin.build_flags & TW_BUILD_PANIC_UNWIND == 0 {
        return Err(Refusal::BuildFlags { found: plugin.build_flags });
    }
    // SAFETY: static data of the library, as the descriptor itself.
    let functions = unsafe { verify_vtable(plugin.vtable) }?;
    let text = |field, value, max| {
        // SAFETY: as above.
        unsafe { copy_strict(value, max) }.map_err(|fault| Refusal::Text { field, fault: fault_text(&fault) })
    };
    let name = text("name", plugin.name, NAME_BYTES_MAX)?;
    if name.is_empty() {
        return Err(Refusal::Empty { field: "name" });
    }
    // Cargo writes `-` in a package's name as `_` in its library's file name.
    if name.replace('-', "_") != file_name.replace('-', "_") {
        return Err(Refusal::Name { found: name, file: file_name.to_owned() });
    }
    let schema = text("options_schema", plugin.options_schema, SCHEMA_BYTES_MAX)?;
    let options_schema =
        serde_json::from_str(&schema).map_err(|error| Refusal::Schema { reason: error.to_string() })?;
    let descriptor = Descriptor {
        name,
        version: text("version", plugin.version, TEXT_BYTES_MAX)?,
        sdk: text("sdk", plugin.sdk, TEXT_BYTES_MAX)?,
        summary: text("summary", plugin.summary, TEXT_BYTES_MAX)?,
        options_schema,
        broadcast: plugin.capabilities & TW_CAP_BROADCAST != 0,
        wants_json: plugin.capabilities & TW_CAP_WANTS_JSON != 0,
        batch_events_max: (plugin.batch_events_max != 0).then(|| plugin.batch_events_max.min(BATCH_EVENTS_MAX)),
        abi: (plugin.abi_major, plugin.abi_minor),
        debug_build: plugin.build_flags & TW_BUILD_DEBUG != 0,
        path: path.to_owned(),
    };
    Ok((descriptor, functions))
}

/// # Safety
/// `vtable` is null or static data of a plugin.
unsafe fn verify_vtable(vtable: *const tw_vtable) -> Result<Functions, Refusal> {
    if vtable.is_null() {
        return Err(Refusal::NullVtable);
    }
    // SAFETY: not null; the first field of every version.
    let size = unsafe { (&raw const (*vtable).struct_size).read_unaligned() };
    if size < TW_VTABLE_SIZE_MIN {
        return Err(Refusal::StructSize { what: "tw_vtable", found: size, needed: TW_VTABLE_SIZE_MIN });
    }
    // SAFETY: the plugin says that `size` bytes are there.
    let vtable = unsafe { tw_copy(vtable, size) };
    Ok(Functions {
        validate: vtable.validate,
        create: vtable.create.ok_or(Refusal::Function { name: "create" })?,
        start: vtable.start,
        deliver: vtable.deliver.ok_or(Refusal::Function { name: "deliver" })?,
        stop: vtable.stop,
        progress: vtable.progress,
        destroy: vtable.destroy.ok_or(Refusal::Function { name: "destroy" })?,
    })
}

fn fault_text(fault: &TextFault) -> String {
    match fault {
        TextFault::Null => "is null although its length is not 0".to_owned(),
        TextFault::TooLong { len, max } => format!("is {len} bytes long, at most {max} are taken"),
        TextFault::NotUtf8 => "is not UTF-8".to_owned(),
    }
}
