//! `sdk/include/tailwater_plugin.h` is what cbindgen makes of this crate, and C and C++ compilers accept it without a warning.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use cbindgen::{Builder, Config, DocumentationStyle, ExportConfig, Language, Style};

const INTRODUCTION: &str = "\
/* The border between the Tailwater daemon and an output plugin, for C and C++.
 *
 * Made from sdk/abi/src/lib.rs. Do not edit; after a change there:
 *     TAILWATER_UPDATE_HEADER=1 cargo test -p tailwater-abi --test header
 *
 * A plugin is a shared library libtailwater_NAME.so that defines tailwater_plugin_v0. See examples/c-plugin.
 *
@RULES@
 */
#ifndef TAILWATER_PLUGIN_H
#define TAILWATER_PLUGIN_H";

const BEFORE: &str = "
/* A plugin's instance: opaque to the host. Cast your own struct's pointer. */
typedef struct tw_instance tw_instance;
";

const AFTER: &str = r"
#ifndef TW_HAS
/* True when `field` lies inside the struct that the other side was compiled with. `ptr` must not be null.
 * Ask before reading a field that was not in the first version of a major. */
#define TW_HAS(ptr, type, field) \
    ((ptr)->struct_size >= offsetof(type, field) + sizeof(((type *)0)->field))
#endif

#if defined(__GNUC__) || defined(__clang__)
#define TW_EXPORT __attribute__((visibility(\042default\042)))
#else
#define TW_EXPORT
#endif

#ifdef __cplusplus
extern \042C\042 {
#endif

/* The one function that a plugin defines. Starts no thread and connects nothing; gives the same pointer on every call. */
TW_EXPORT const tw_plugin *tailwater_plugin_v0(void);

#ifdef __cplusplus
}
#endif

#if UINTPTR_MAX == UINT64_MAX
#ifdef __cplusplus
#define TW_LAYOUT(type, bytes) static_assert(sizeof(type) == bytes, #type)
#else
#define TW_LAYOUT(type, bytes) _Static_assert(sizeof(type) == bytes, #type)
#endif
TW_LAYOUT(tw_plugin, 128);
TW_LAYOUT(tw_vtable, 64);
TW_LAYOUT(tw_validate_args, 48);
TW_LAYOUT(tw_create_args, 56);
TW_LAYOUT(tw_event, 200);
TW_LAYOUT(tw_batch, 40);
TW_LAYOUT(tw_event_result, 32);
TW_LAYOUT(tw_completion, 56);
TW_LAYOUT(tw_log_record, 56);
TW_LAYOUT(tw_metric, 56);
TW_LAYOUT(tw_host, 72);
TW_LAYOUT(tw_progress, 32);
#undef TW_LAYOUT
#endif

#endif /* TAILWATER_PLUGIN_H */";

fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn header_path() -> PathBuf {
    folder().join("../include/tailwater_plugin.h")
}

/// The rules as the crate's own documentation has them: who writes C has this file alone.
fn rules() -> String {
    let source = fs::read_to_string(folder().join("src/lib.rs")).expect("the crate can be read");
    let documentation = source.lines().map_while(|line| line.strip_prefix("//!"));
    let rules: Vec<String> = documentation
        .skip_while(|line| !line.starts_with(" Rules both sides keep"))
        .map(|line| format!(" *{line}"))
        .collect();
    assert!(rules.len() > 10, "the rules stand at the top of src/lib.rs");
    rules.join("\n")
}

fn generate() -> String {
    let config = Config {
        language: Language::C,
        cpp_compat: true,
        style: Style::Both,
        header: Some(INTRODUCTION.replace("@RULES@", &rules())),
        after_includes: Some(BEFORE.to_owned()),
        trailer: Some(AFTER.replace("\\042", "\"")),
        no_includes: true,
        sys_includes: vec!["stddef.h".to_owned(), "stdint.h".to_owned()],
        documentation: true,
        documentation_style: DocumentationStyle::C99,
        line_length: 120,
        export: ExportConfig {
            // What no function mentions by its type is not found by itself.
            include: ["tw_plugin_entry", "tw_event", "tw_batch", "tw_event_result"].map(str::to_owned).into(),
            exclude: vec!["tw_instance".to_owned()],
            ..ExportConfig::default()
        },
        usize_is_size_t: true,
        ..Config::default()
    };
    let bindings = Builder::new().with_config(config).with_src(folder().join("src/lib.rs")).generate();
    let mut text = Vec::new();
    bindings.expect("cbindgen reads the crate").write(&mut text);
    String::from_utf8(text).expect("the header is UTF-8")
}

#[test]
fn the_header_is_what_the_crate_says() {
    let (path, generated) = (header_path(), generate());
    if std::env::var_os("TAILWATER_UPDATE_HEADER").is_some() {
        fs::write(&path, &generated).expect("the header can be written");
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == generated,
        "sdk/include/tailwater_plugin.h differs from sdk/abi/src/lib.rs: run\n    \
         TAILWATER_UPDATE_HEADER=1 cargo test -p tailwater-abi --test header\nand look at the difference before you commit \
         it: within a major, fields, functions and constants may only be appended"
    );
}

#[test]
fn the_header_alone_says_the_rules() {
    let header = generate();
    let introduction = header.split("#ifndef").next().expect("text before the guard");
    let rules =
        ["1. Nothing allocated", "2. Only structs", "3. A growable", "4. Fields", "5. What", "6. No unwinding", "7. "];
    for rule in rules {
        assert!(introduction.contains(&format!("\n * {rule}")), "{rule:?} is not in\n{introduction}");
    }
}

#[test]
fn c_and_cpp_compilers_accept_it_without_a_warning() {
    // What would be committed, not what is: the other test may be writing that right now.
    let includes = Path::new(env!("CARGO_TARGET_TMPDIR"));
    fs::write(includes.join("tailwater_plugin.h"), generate()).expect("the header can be written");
    for (compiler, standard, language) in [("cc", "-std=c11", "c"), ("c++", "-std=c++17", "c++")] {
        let source = folder().join("tests/header.c");
        let output = Command::new(compiler)
            .args(["-Wall", "-Wextra", "-Werror", "-Wpedantic", standard, "-x", language, "-fsyntax-only", "-I"])
            .arg(includes)
            .arg(source)
            .output()
            .unwrap_or_else(|error| panic!("run {compiler}: {error}; install a C and a C++ compiler"));
        assert!(output.status.success(), "{compiler}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
