//! The options of an output against the JSON Schema its plugin carries, with errors that name the option.

use jsonschema::Validator;
use jsonschema::error::ValidationErrorKind;
use serde_json::Value;
use thiserror::Error;

/// The options of an output are not acceptable to its plugin.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{}", faults.join("; "))]
pub struct OptionsError {
    /// One sentence per fault, each with the option's path.
    pub faults: Vec<String>,
}

/// Every fault the schema finds.
pub(crate) fn check(validator: &Validator, schema: &Value, options: &Value) -> Result<(), OptionsError> {
    let faults: Vec<String> = validator.iter_errors(options).map(|error| describe(&error, schema)).collect();
    if faults.is_empty() { Ok(()) } else { Err(OptionsError { faults }) }
}

fn describe(error: &jsonschema::ValidationError<'_>, schema: &Value) -> String {
    let path = dotted(error.instance_path().as_str());
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
            // The list of known options stands beside the keyword that forbids the others.
            let known = known_properties(schema, error.schema_path().as_str());
            unexpected.iter().map(|key| unknown(&format!("{path}.{key}"), key, &known)).collect::<Vec<_>>().join("; ")
        }
        ValidationErrorKind::Required { property } => {
            format!("{path}.{} is required", property.as_str().unwrap_or_default())
        }
        // People read examples, not regular expressions.
        ValidationErrorKind::Pattern { .. } if !examples(error, schema).is_empty() => {
            format!("{path}: value is not of the form {}", examples(error, schema).join(" or "))
        }
        // Masked: options hold secrets that were expanded from the environment, and this text goes to the log.
        _ => format!("{path}: {}", error.masked()),
    }
}

/// The examples that the schema has beside the keyword that failed.
fn examples(error: &jsonschema::ValidationError<'_>, schema: &Value) -> Vec<String> {
    let parent = error.schema_path().as_str().rsplit_once('/').map_or("", |(parent, _)| parent);
    let examples = schema.pointer(parent).and_then(|node| node.get("examples")).and_then(Value::as_array);
    examples.into_iter().flatten().map(Value::to_string).collect()
}

fn unknown(path: &str, key: &str, known: &[String]) -> String {
    match nearest(key, known) {
        Some(near) => format!("{path}: unknown option, did you mean {near:?}?"),
        None if known.is_empty() => format!("{path}: unknown option, this plugin has none here"),
        None => format!("{path}: unknown option, there are {}", known.join(", ")),
    }
}

/// The known name that a typing error would most likely have meant.
pub(crate) fn nearest<'a>(name: &str, known: &'a [String]) -> Option<&'a String> {
    known
        .iter()
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

fn known_properties(schema: &Value, keyword_path: &str) -> Vec<String> {
    let parent = keyword_path.rsplit_once('/').map_or("", |(parent, _)| parent);
    let properties = schema.pointer(parent).and_then(|node| node.get("properties")).and_then(Value::as_object);
    properties.map(|properties| properties.keys().cloned().collect()).unwrap_or_default()
}

/// `/retry/0/after` as `options.retry[0].after`.
fn dotted(pointer: &str) -> String {
    let mut path = "options".to_owned();
    for part in pointer.split('/').skip(1) {
        let part = part.replace("~1", "/").replace("~0", "~");
        if !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) {
            path.push_str(&format!("[{part}]"));
        } else {
            path.push('.');
            path.push_str(&part);
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn faults_name_the_option() {
        let schema = json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["path"],
            "properties": {
                "path": { "type": "string" },
                "wait": { "type": "string", "pattern": "^[0-9]+s$", "examples": ["5s", "10s"] },
                "retry": { "$ref": "#/$defs/retry" },
                "hosts": { "type": "array", "items": { "type": "string" } }
            },
            "$defs": { "retry": { "type": "object", "additionalProperties": false, "properties": { "after": {} } } }
        });
        let validator = jsonschema::validator_for(&schema).unwrap();
        let table = [
            (json!({ "path": "a" }), ""),
            (json!({ "path": 5 }), r#"options.path: value is not of type "string""#),
            (json!({}), "options.path is required"),
            (json!({ "path": "a", "hosst": [] }), r#"options.hosst: unknown option, did you mean "hosts"?"#),
            (json!({ "path": "a", "wait": "5" }), r#"options.wait: value is not of the form "5s" or "10s""#),
            (json!({ "path": "a", "zzz": 1 }), "options.zzz: unknown option, there are hosts, path, retry, wait"),
            (json!({ "path": "a", "hosts": ["b", 1] }), r#"options.hosts[1]: value is not of type "string""#),
            (
                json!({ "path": "a", "retry": { "aftr": 1 } }),
                r#"options.retry.aftr: unknown option, did you mean "after"?"#,
            ),
        ];
        for (options, expected) in table {
            let found = check(&validator, &schema, &options).err().map(|error| error.to_string()).unwrap_or_default();
            assert_eq!(found, expected, "{options}");
        }
    }

    #[test]
    fn no_fault_quotes_a_value() {
        let text = |rule: Value| json!({ "type": "object", "properties": { "token": rule } });
        for rule in [
            json!({ "type": "integer" }),
            json!({ "maxLength": 3 }),
            json!({ "minLength": 300 }),
            json!({ "enum": ["a", "b"] }),
            json!({ "const": "a" }),
            json!({ "pattern": "^[0-9]+$" }),
            json!({ "format": "uri" }),
            json!({ "oneOf": [{ "const": "a" }, { "const": "b" }] }),
            json!({ "anyOf": [{ "type": "null" }, { "type": "integer" }] }),
            json!({ "not": { "type": "string" } }),
        ] {
            let schema = text(rule);
            let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
            let fault = check(&validator, &schema, &json!({ "token": "hunter2" })).unwrap_err().to_string();
            assert!(fault.starts_with("options.token: ") && !fault.contains("hunter2"), "{schema}: {fault}");
        }
    }
}
