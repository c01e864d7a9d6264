//! What the library says of itself, and the macro that exports it.

use std::sync::OnceLock;

use tailwater_abi::*;

use crate::{Output, thunk};

/// What only the plugin's own crate can know. Filled in by [`export_output!`](crate::export_output).
#[doc(hidden)]
pub struct Package {
    pub name: &'static str,
    pub version: &'static str,
    pub panic_abort: bool,
    pub debug: bool,
}

/// A library's descriptor.
#[doc(hidden)]
pub struct Descriptor(pub tw_plugin);

// SAFETY: every pointer in it leads to data that is never written and never freed.
unsafe impl Send for Descriptor {}
// SAFETY: as above.
unsafe impl Sync for Descriptor {}

static PLUGIN_NAME: OnceLock<&'static str> = OnceLock::new();

/// The plugin's name, for the names of its threads.
pub(crate) fn plugin_name() -> &'static str {
    PLUGIN_NAME.get().copied().unwrap_or("plugin")
}

struct Functions<O>(std::marker::PhantomData<O>);

impl<O: Output> Functions<O> {
    const TABLE: tw_vtable = tw_vtable {
        struct_size: size_of::<tw_vtable>() as u32,
        reserved0: 0,
        validate: Some(thunk::validate::<O>),
        create: Some(thunk::create::<O>),
        start: Some(thunk::start::<O>),
        deliver: Some(thunk::deliver::<O>),
        stop: Some(thunk::stop::<O>),
        destroy: Some(thunk::destroy::<O>),
        progress: Some(thunk::progress::<O>),
    };
}

/// The functions of `O` as the border has them.
#[doc(hidden)]
pub const fn functions<O: Output>() -> &'static tw_vtable {
    &Functions::<O>::TABLE
}

/// Makes the descriptor of `O`. Not a constant, because schemars makes the schema at run time; its text is leaked, once per
/// library, because a descriptor lives as long as the process anyway: libraries are never unloaded.
#[doc(hidden)]
pub fn descriptor<O: Output>(package: Package) -> Descriptor {
    let schema = schemars::schema_for!(O::Options).as_value().to_string();
    let crate_name = package.name.strip_prefix("tailwater-").unwrap_or(package.name);
    let name = *PLUGIN_NAME.get_or_init(|| if O::NAME.is_empty() { crate_name } else { O::NAME });
    let mut build_flags = if package.panic_abort { TW_BUILD_PANIC_ABORT } else { TW_BUILD_PANIC_UNWIND };
    if package.debug {
        build_flags |= TW_BUILD_DEBUG;
    }
    let mut capabilities = 0;
    if O::BROADCAST {
        capabilities |= TW_CAP_BROADCAST;
    }
    if O::WANTS_JSON {
        capabilities |= TW_CAP_WANTS_JSON;
    }
    Descriptor(tw_plugin {
        magic: TW_MAGIC,
        struct_size: size_of::<tw_plugin>() as u32,
        abi_major: TW_ABI_MAJOR,
        abi_minor: TW_ABI_MINOR,
        min_host_minor: 0,
        reserved0: 0,
        build_flags,
        name: tw_str::new(name),
        version: tw_str::new(package.version),
        sdk: tw_str::new(concat!("tailwater-sdk/", env!("CARGO_PKG_VERSION"))),
        summary: tw_str::new(O::SUMMARY),
        options_schema: tw_str::new(Box::leak(schema.into_boxed_str())),
        capabilities,
        batch_events_max: O::BATCH_EVENTS_MAX,
        reserved1: 0,
        vtable: functions::<O>(),
    })
}

/// Calls `make` once; null where it panics, which the host refuses with a clear error.
#[doc(hidden)]
pub fn entry(once: &'static OnceLock<Descriptor>, make: fn() -> Descriptor) -> *const tw_plugin {
    std::panic::catch_unwind(|| &raw const once.get_or_init(make).0).unwrap_or(std::ptr::null())
}

/// Makes the crate a plugin: exports the one function that the daemon looks for. Once per library, with
/// `crate-type = ["cdylib", "rlib"]` in its `Cargo.toml`.
#[macro_export]
macro_rules! export_output {
    ($output:ty) => {
        /// What this library is. Called by the Tailwater daemon.
        #[unsafe(no_mangle)]
        pub extern "C" fn tailwater_plugin_v0() -> *const $crate::abi::tw_plugin {
            static DESCRIPTOR: ::std::sync::OnceLock<$crate::Descriptor> = ::std::sync::OnceLock::new();
            $crate::entry(&DESCRIPTOR, || $crate::descriptor::<$output>($crate::package!()))
        }
    };
}

/// The [`Package`] of the crate that this is written in.
#[doc(hidden)]
#[macro_export]
macro_rules! package {
    () => {
        $crate::Package {
            name: env!("CARGO_PKG_NAME"),
            version: env!("CARGO_PKG_VERSION"),
            panic_abort: cfg!(panic = "abort"),
            debug: cfg!(debug_assertions),
        }
    };
}
