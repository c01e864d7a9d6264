//! A library that cannot be loaded is refused with a sentence that says what is wrong with it and what to do, before
//! MongoDB is contacted; a good one in C is described.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// The border, as far as a descriptor needs it. By hand on purpose: these libraries break it in ways the header forbids.
const PRELUDE: &str = r#"
#include <stddef.h>
#include <stdint.h>
typedef struct { const char *ptr; size_t len; } tw_str;
#define STR(text) { text, sizeof(text) - 1 }
typedef struct {
    uint32_t struct_size, reserved0;
    void *validate, *create, *start, *deliver, *stop, *destroy;
} tw_vtable;
typedef struct {
    uint64_t magic;
    uint32_t struct_size;
    uint16_t abi_major, abi_minor, min_host_minor, reserved0;
    uint32_t build_flags;
    tw_str name, version, sdk, summary, options_schema;
    uint64_t capabilities;
    uint32_t batch_events_max, reserved1;
    const tw_vtable *vtable;
} tw_plugin;
static int32_t create(const void *args, void **out) { (void)args; *out = &create; return 0; }
static int32_t deliver(void *i, const void *b, uint64_t t) { (void)i; (void)b; (void)t; return 0; }
static void destroy(void *i) { (void)i; }
#ifndef MAGIC
#define MAGIC 0x525441574C494154ull
#endif
#ifndef SYMBOL
#define SYMBOL tailwater_plugin_v0
#endif
#ifndef STRUCT_SIZE
#define STRUCT_SIZE sizeof(tw_plugin)
#endif
#ifndef ABI_MAJOR
#define ABI_MAJOR 0
#endif
#ifndef MIN_HOST_MINOR
#define MIN_HOST_MINOR 0
#endif
#ifndef BUILD_FLAGS
#define BUILD_FLAGS 1
#endif
#ifndef NAME
#define NAME "broken"
#endif
#ifndef SCHEMA
#define SCHEMA "{\"type\":\"object\",\"additionalProperties\":false,\"properties\":{\"path\":{\"type\":\"string\"}}}"
#endif
#ifndef DELIVER
#define DELIVER deliver
#endif
#ifdef UNDEFINED
extern int nobody_defines_this(void);
int call_it(void) { return nobody_defines_this(); }
#endif
static const tw_vtable vtable = { sizeof(tw_vtable), 0, 0, create, 0, DELIVER, 0, destroy };
static const tw_plugin plugin = {
    MAGIC, STRUCT_SIZE, ABI_MAJOR, 0, MIN_HOST_MINOR, 0, BUILD_FLAGS,
    STR(NAME), STR("1.2.3"), STR("none"), STR("A plugin in C"), STR(SCHEMA), 0, 25, 0, &vtable,
};
const tw_plugin *SYMBOL(void) { (void)deliver; return &plugin; }
"#;

/// A folder with one library in it, built from the prelude with these macros.
struct Built {
    dir: TempDir,
}

impl Built {
    fn new(defines: &[&str]) -> Self {
        let built = Self { dir: TempDir::new().unwrap() };
        let source = built.dir.path().join("broken.c");
        std::fs::write(&source, PRELUDE).unwrap();
        let output = Command::new("cc")
            .args(["-shared", "-fPIC", "-Wl,-z,undefs", "-o"])
            .arg(built.library())
            .args(defines.iter().map(|define| format!("-D{define}")))
            .arg(&source)
            .output()
            .expect("run cc: install a C compiler (Debian: apt install gcc libc6-dev)");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        built
    }

    fn library(&self) -> PathBuf {
        self.dir.path().join("libtailwater_broken.so")
    }

    fn edit(&self, change: impl FnOnce(&mut Vec<u8>)) -> &Self {
        let mut bytes = std::fs::read(self.library()).unwrap();
        change(&mut bytes);
        std::fs::write(self.library(), bytes).unwrap();
        self
    }

    fn refusal(&self) -> String {
        refusal(&inspect(&self.library()))
    }
}

fn tailwater() -> Command {
    Command::new(env!("CARGO_BIN_EXE_tailwater"))
}

fn inspect(file: &Path) -> Output {
    tailwater().args(["plugin", "inspect"]).arg(file).output().unwrap()
}

/// The one line on stderr of a command that ended with 64.
fn refusal(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(64), "{text}");
    assert!(output.stdout.is_empty() && text.lines().count() == 1, "{text}");
    text
}

#[test]
fn a_broken_handshake_names_the_field_and_both_values() {
    let table: [(&[&str], &str); 12] = [
        (&["MAGIC=7"], "magic is 0x0000000000000007, expected 0x525441574c494154: this is not a Tailwater plugin"),
        (&["STRUCT_SIZE=64"], "tw_plugin.struct_size is 64, at least 128 is needed"),
        (&["ABI_MAJOR=3"], "abi_major is 3, this host speaks 0: build the plugin against a matching tailwater-sdk"),
        (&["SYMBOL=tailwater_plugin_v1"], "it speaks tailwater_plugin_v1, this host tailwater_plugin_v0"),
        (&["SYMBOL=something_else"], "it does not export tailwater_plugin_v0: this is not a Tailwater plugin"),
        (&["MIN_HOST_MINOR=900"], "min_host_minor is 900, this host is 0."),
        (&["BUILD_FLAGS=2"], "in [profile.release] of the Cargo.toml it is built with, and build it again"),
        (&["BUILD_FLAGS=0"], "build_flags is 0x0, which lacks TW_BUILD_PANIC_UNWIND (0x1)"),
        (&["NAME=\"other\""], "name is \"other\", the file says \"broken\": rename the file to libtailwater_other"),
        (&["SCHEMA=\"{\""], "options_schema is not a JSON Schema: "),
        (&["DELIVER=0"], "vtable.deliver is null, every plugin must have it"),
        (&["UNDEFINED"], "undefined symbol: nobody_defines_this"),
    ];
    for (defines, expected) in table {
        let built = Built::new(defines);
        let found = built.refusal();
        assert!(found.contains(expected), "{defines:?}: {found:?} lacks {expected:?}");
        assert!(found.contains("libtailwater_broken.so"), "the path is missing: {found}");
    }
}

#[test]
fn a_file_that_is_no_library_for_this_host_says_so() {
    let built = Built::new(&[]);
    let machine = built.edit(|bytes| bytes[18] = if bytes[18] == 183 { 62 } else { 183 }).refusal();
    let host = std::env::consts::ARCH;
    let other = if host == "aarch64" { "x86_64" } else { "aarch64" };
    assert!(machine.contains(&format!("built for {other}, this host is {host}")), "{machine}");

    let truncated = Built::new(&[]);
    let text = truncated.edit(|bytes| bytes.truncate(bytes.len() / 2)).refusal();
    assert!(text.contains("truncated or damaged") && text.contains("copy it again"), "{text}");
    let text = truncated.edit(|bytes| bytes.truncate(10)).refusal();
    assert!(text.contains("truncated or damaged (only 10 bytes)"), "{text}");
    let text = truncated.edit(Vec::clear).refusal();
    assert!(text.contains("the file is empty"), "{text}");
    let text = truncated.edit(|bytes| bytes.extend_from_slice(b"#!/bin/sh\necho hello\n")).refusal();
    assert!(text.contains("not a library (no ELF header)"), "{text}");

    // An executable is ELF as well: the C object file stands for it.
    let object = Built::new(&[]);
    let text = object.edit(|bytes| bytes[16] = 1).refusal();
    assert!(text.contains("not a shared library: build it as a cdylib"), "{text}");

    let folder = TempDir::new().unwrap();
    let path = folder.path().join("libtailwater_broken.so");
    std::fs::create_dir(&path).unwrap();
    assert!(refusal(&inspect(&path)).contains("is not a regular file"));
    let text = refusal(&inspect(&folder.path().join("libtailwater_absent.so")));
    assert!(text.contains("libtailwater_absent.so: No such file"), "{text}");
    let named = folder.path().join("plugin.so");
    std::fs::copy(Built::new(&[]).library(), &named).unwrap();
    assert!(refusal(&inspect(&named)).contains("is not named libtailwater_<plugin>.so"));
}

#[test]
fn a_file_that_anyone_could_replace_is_refused() {
    let file = Built::new(&[]);
    std::fs::set_permissions(file.library(), PermissionsExt::from_mode(0o757)).unwrap();
    let text = file.refusal();
    assert!(text.contains("is world-writable (mode 757)") && text.contains("chmod o-w"), "{text}");

    let folder = Built::new(&[]);
    std::fs::set_permissions(folder.dir.path(), PermissionsExt::from_mode(0o1777)).unwrap();
    assert!(folder.refusal().contains("is world-writable (mode 1777)"));

    let outside = Built::new(&[]);
    let inside = TempDir::new().unwrap();
    let link = inside.path().join("libtailwater_broken.so");
    std::os::unix::fs::symlink(outside.library(), &link).unwrap();
    let text = refusal(&inspect(&link));
    assert!(text.contains("which is outside the folder: copy the library there instead"), "{text}");
}

/// The output of `tailwater check` with this `[outputs.live]`.
fn check(plugins: &Path, output: &str) -> Output {
    let dir = TempDir::new().unwrap();
    let config = dir.path().join("config.toml");
    let text = format!(
        "[source]\nuri = \"mongodb://127.0.0.1:1/?replicaSet=none\"\nwatch = [\"shop.orders\"]\n\
         full_document = \"update_lookup\"\n[plugins]\ndir = {plugins:?}\n[outputs.live]\n{output}\n"
    );
    std::fs::write(&config, text).unwrap();
    tailwater().args(["check", "--config"]).arg(&config).output().unwrap()
}

#[test]
fn check_finds_a_missing_plugin_and_wrong_options() {
    let built = Built::new(&[]);
    let dir = built.dir.path();
    let table = [
        ("plugin = \"brokn\"", "did you mean \"broken\"? there are broken"),
        ("plugin = \"zzz\"", "libtailwater_zzz.so is not there; there are broken"),
        ("plugin = \"broken\"\noptions = { path = 5 }", "outputs.live.options.path: value is not of type \"string\""),
        ("plugin = \"broken\"\noptions = { pth = \"a\" }", "options.pth: unknown option, did you mean \"path\"?"),
    ];
    for (output, expected) in table {
        let found = refusal(&check(dir, output));
        assert!(found.contains(expected), "{output}: {found:?} lacks {expected:?}");
    }
    let both = check(dir, "plugin = \"broken\"\noptions = { path = 5 }\nmatch = { a = { \"$nonsense\" = 1 } }");
    let text = String::from_utf8_lossy(&both.stderr);
    assert!(text.contains("outputs.live.options.path") && text.contains("outputs.live.match"), "{text}");
    let empty = TempDir::new().unwrap();
    assert!(refusal(&check(empty.path(), "plugin = \"sse\"")).contains("there is no plugin at all; set plugins.dir"));
    let gone = empty.path().join("gone");
    assert!(refusal(&check(&gone, "plugin = \"sse\"")).contains("No such file"));
}

#[test]
fn a_good_library_is_described_and_passes_the_check() {
    let built = Built::new(&[]);
    let output = inspect(&built.library());
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for line in ["name          broken", "version       1.2.3", "batch         25 events", "  path  string, optional"] {
        assert!(text.lines().any(|found| found == line), "{line:?} is not in\n{text}");
    }
    let output = tailwater().args(["plugin", "inspect", "--json"]).arg(built.library()).output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((json["name"].as_str(), json["batch_events_max"].as_u64()), (Some("broken"), Some(25)));

    let output = check(built.dir.path(), "plugin = \"broken\"\nmatch = { \"fullDocument.status\" = \"open\" }");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!((output.status.code(), &*out), (Some(0), "outputs.live: plugin broken 1.2.3\nok\n"), "{err}");
    assert!(err.contains("tailwater: warning: ") && err.contains("/config.toml: outputs.live.match: with"), "{err}");
}

#[test]
fn a_wrong_command_line_ends_with_64() {
    for arguments in [&["dance"][..], &[], &["run", "--config"], &["plugin", "inspect"], &["check", "--nope"]] {
        let output = tailwater().args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
    assert_eq!(tailwater().arg("--help").output().unwrap().status.code(), Some(0));
    assert_eq!(tailwater().arg("--version").output().unwrap().status.code(), Some(0));
}
