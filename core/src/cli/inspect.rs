//! `tailwater plugin inspect`: what a plugin library says of itself, for people or as JSON. Starts nothing.

use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::refuse;
use crate::plugin::{Descriptor, Library};

/// Depth to which types that refer to others are followed.
const REFERENCE_DEPTH_MAX: usize = 8;

/// Prints the plugin in `file`. Exit code 64 when it would not be loaded.
pub fn inspect(file: &Path, as_json: bool) -> ExitCode {
    let library = match Library::open_file(file) {
        Ok(library) => library,
        Err(error) => return refuse(&error),
    };
    let descriptor = library.descriptor();
    if as_json {
        println!("{:#}", to_json(descriptor));
    } else {
        print!("{}", to_text(descriptor));
    }
    ExitCode::SUCCESS
}

fn capabilities(descriptor: &Descriptor) -> Vec<&'static str> {
    let all = [(descriptor.broadcast, "broadcast"), (descriptor.wants_json, "wants_json")];
    all.into_iter().filter_map(|(has, name)| has.then_some(name)).collect()
}

fn to_json(descriptor: &Descriptor) -> Value {
    json!({
        "name": descriptor.name,
        "version": descriptor.version,
        "sdk": descriptor.sdk,
        "abi": format!("{}.{}", descriptor.abi.0, descriptor.abi.1),
        "path": descriptor.path.display().to_string(),
        "summary": descriptor.summary,
        "capabilities": capabilities(descriptor),
        "batch_events_max": descriptor.batch_events_max,
        "debug_build": descriptor.debug_build,
        "options_schema": descriptor.options_schema,
    })
}

fn to_text(descriptor: &Descriptor) -> String {
    let capabilities = capabilities(descriptor).join(", ");
    let batch = descriptor.batch_events_max.map_or("left to the host".to_owned(), |max| format!("{max} events"));
    let build = if descriptor.debug_build { "debug" } else { "release" };
    let mut text = String::new();
    for (key, value) in [
        ("name", descriptor.name.as_str()),
        ("version", &descriptor.version),
        ("sdk", &descriptor.sdk),
        ("abi", &format!("{}.{}", descriptor.abi.0, descriptor.abi.1)),
        ("build", build),
        ("path", &descriptor.path.display().to_string()),
        ("summary", &descriptor.summary),
        ("capabilities", if capabilities.is_empty() { "none" } else { &capabilities }),
        ("batch", &batch),
    ] {
        text.push_str(&format!("{key:<13} {value}\n"));
    }
    let options = options_of(&descriptor.options_schema);
    if options.is_empty() {
        text.push_str("options       none\n");
        return text;
    }
    text.push_str("options\n");
    let width = options.iter().map(|option| option.name.len()).max().unwrap_or(0);
    for option in options {
        text.push_str(&format!("  {:<width$}  {}, {}\n", option.name, option.kind, option.default));
        for line in option.description.lines() {
            text.push_str(&format!("  {:<width$}    {line}\n", ""));
        }
    }
    text
}

/// One option as it is shown.
#[derive(Debug, PartialEq, Eq)]
struct Shown {
    name: String,
    kind: String,
    default: String,
    description: String,
}

fn options_of(schema: &Value) -> Vec<Shown> {
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let Some(properties) = schema["properties"].as_object() else { return Vec::new() };
    let show = |(name, node): (&String, &Value)| Shown {
        name: name.clone(),
        kind: kind_of(schema, node, REFERENCE_DEPTH_MAX),
        default: match node.get("default") {
            Some(Value::Null) => "optional".to_owned(),
            Some(default) => format!("default {default}"),
            None if required.iter().any(|required| required == name) => "required".to_owned(),
            None => "optional".to_owned(),
        },
        description: node["description"].as_str().unwrap_or_default().to_owned(),
    };
    properties.iter().map(show).collect()
}

/// The type of an option in a word or a few.
fn kind_of(schema: &Value, node: &Value, depth: usize) -> String {
    if depth == 0 {
        return "any".to_owned();
    }
    if let Some(target) = node["$ref"].as_str().and_then(|reference| schema.pointer(reference.trim_start_matches('#')))
    {
        return kind_of(schema, target, depth - 1);
    }
    if let Some(value) = node.get("const") {
        return value.to_string();
    }
    if let Some(values) = node["enum"].as_array() {
        return values.iter().filter(|value| !value.is_null()).map(Value::to_string).collect::<Vec<_>>().join(" | ");
    }
    if let Some(alternatives) = node["anyOf"].as_array().or_else(|| node["oneOf"].as_array()) {
        let mut kinds: Vec<String> =
            alternatives.iter().map(|alternative| kind_of(schema, alternative, depth - 1)).collect();
        kinds.retain(|kind| kind != "null");
        return kinds.join(" | ");
    }
    match &node["type"] {
        Value::String(kind) if kind == "array" => match node.get("items") {
            Some(items) => format!("array of {}", kind_of(schema, items, depth - 1)),
            None => "array".to_owned(),
        },
        Value::String(kind) => kind.clone(),
        // An optional option has null beside its type; TOML knows no null, so nobody writes it.
        Value::Array(kinds) => {
            kinds.iter().filter_map(Value::as_str).filter(|kind| *kind != "null").collect::<Vec<_>>().join(" | ")
        }
        _ => "any".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_shown_with_type_and_default() {
        let schema = json!({
            "required": ["url"],
            "properties": {
                "url": { "type": "string", "description": "Where to." },
                "form": { "$ref": "#/$defs/form", "default": "lines" },
                "path": { "type": ["string", "null"], "default": null },
                "tags": { "type": "array", "items": { "type": "integer" } },
                "mode": { "anyOf": [{ "$ref": "#/$defs/form" }, { "type": "null" }] }
            },
            "$defs": { "form": { "oneOf": [{ "const": "lines" }, { "const": "array" }] } }
        });
        let shown: Vec<String> = options_of(&schema)
            .into_iter()
            .map(|option| format!("{}: {}, {}", option.name, option.kind, option.default))
            .collect();
        let expected = [
            r#"form: "lines" | "array", default "lines""#,
            r#"mode: "lines" | "array", optional"#,
            "path: string, optional",
            "tags: array of integer, optional",
            "url: string, required",
        ];
        // The order is the schema's own where serde_json keeps it.
        for line in expected {
            assert!(shown.iter().any(|found| found == line), "{line:?} is not in {shown:#?}");
        }
    }
}
