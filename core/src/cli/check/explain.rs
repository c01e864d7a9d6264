//! `tailwater check --explain`: what the server is asked to filter, and what is left to each output. From the configuration alone:
//! the server is not contacted, and nothing is said of how it goes about it.

use std::fmt::Write;

use bson::{Bson, Document};
use tailwater_match::union::Fate;

use crate::config::Config;
use crate::lane;
use crate::source::scope::Scope;
use crate::source::stream::filter_stage;
use crate::window::{Coverage, Wanted};

/// Wider than this, a document is written over several lines.
const WIDTH_MAX: usize = 110;

/// Everything there is to say, in lines.
pub fn explain(config: &Config) -> String {
    let outputs: Vec<&lane::config::Config> = config.outputs.iter().filter(|output| output.enabled).collect();
    let coverage = Coverage::of(outputs.iter().map(|output| output.query.clone()));
    let scope = Scope::new(&config.source.watch);
    let mut text = String::new();
    line(&mut text, 0, &format!("change stream of {}, for all outputs:", scope.describe()));
    match &scope.filter {
        Some(filter) => document(&mut text, "scope", filter),
        None => line(&mut text, 1, "scope: everything in it"),
    }
    for stage in &config.source.pipeline {
        document(&mut text, "source.pipeline", stage);
    }
    match coverage.to_match() {
        Some(filter) => document(&mut text, &sized("$match of the outputs", filter), &matched(filter)),
        None => line(&mut text, 1, &format!("$match of the outputs: none, {}", why_none(&outputs, &coverage))),
    }
    for output in outputs {
        line(&mut text, 0, &format!("outputs.{}:", output.name));
        of_output(&mut text, output, &coverage);
    }
    text
}

fn of_output(text: &mut String, output: &lane::config::Config, coverage: &Coverage) {
    let Some(query) = &output.query else {
        return line(text, 1, "no match: every event is for it");
    };
    let alone = Coverage::of([query.clone()]);
    let fate = coverage.fate(&Wanted::from(query.clone())).cloned().unwrap_or_default();
    match () {
        () if fate.is_exact() => line(text, 1, "the server is asked for exactly what its match lets through"),
        () if fate.coarsened => line(
            text,
            1,
            "the server is asked for more than its match lets through: the match of all outputs together costs it too much",
        ),
        () => line(text, 1, "the server is asked for more than its match lets through"),
    }
    for dropped in &fate.dropped {
        document(text, &format!("left to the daemon, {}", dropped.why), &dropped.term);
    }
    document(text, "decided by the daemon for each event it gets", query);
    match alone.to_match() {
        Some(filter) => document(text, &sized("$match while it catches up on its own", filter), &matched(filter)),
        None => line(text, 1, "$match while it catches up on its own: none"),
    }
}

/// Why all events in scope are sent.
fn why_none(outputs: &[&lane::config::Config], coverage: &Coverage) -> String {
    let all = outputs.iter().find(|output| output.query.is_none());
    let is_coarse = |output: &&&lane::config::Config| {
        let fate = output.query.clone().and_then(|query| coverage.fate(&Wanted::from(query)));
        fate.is_some_and(|fate: &Fate| fate.coarsened)
    };
    match (all, outputs.iter().find(is_coarse)) {
        (Some(output), _) => format!("outputs.{} has no match", output.name),
        (None, Some(_)) => {
            "the match of all outputs together would cost the server more than sending everything".to_owned()
        }
        (None, None) => "a match asks nothing that is pushed down".to_owned(),
    }
}

/// The stage as the server gets it.
fn matched(filter: &Document) -> Document {
    filter_stage(filter).get_document("$match").cloned().unwrap_or_default()
}

fn sized(what: &str, filter: &Document) -> String {
    let bytes = bson::serialize_to_vec(&matched(filter)).map_or(0, |bytes| bytes.len());
    format!("{what}, {bytes} bytes")
}

fn line(text: &mut String, level: usize, words: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "{:indent$}{words}", "", indent = 2 * level);
}

fn document(text: &mut String, what: &str, document: &Document) {
    line(text, 1, &format!("{what}:"));
    let value = Bson::Document(document.clone());
    line(text, 2, &pretty(&value, 4));
}

/// Relaxed extended JSON, on one line where it fits.
fn pretty(value: &Bson, indent: usize) -> String {
    let whole = compact(value);
    if indent + whole.chars().count() <= WIDTH_MAX {
        return whole;
    }
    let (open, parts, close) = match value {
        Bson::Document(document) if !document.is_empty() => {
            let parts = document.iter().map(|(name, value)| format!("{}: {}", quoted(name), pretty(value, indent + 2)));
            ('{', parts.collect::<Vec<_>>(), '}')
        }
        Bson::Array(values) if values.iter().any(|value| matches!(value, Bson::Document(_) | Bson::Array(_))) => {
            ('[', values.iter().map(|value| pretty(value, indent + 2)).collect(), ']')
        }
        // Values in a row stay one.
        _ => return whole,
    };
    let separator = format!(",\n{:indent$}", "", indent = indent + 2);
    format!("{open}\n{:inner$}{}\n{:indent$}{close}", "", parts.join(&separator), "", inner = indent + 2)
}

fn compact(value: &Bson) -> String {
    match value {
        Bson::Document(document) if document.is_empty() => "{}".to_owned(),
        Bson::Document(document) => {
            let parts = document.iter().map(|(name, value)| format!("{}: {}", quoted(name), compact(value)));
            format!("{{ {} }}", parts.collect::<Vec<_>>().join(", "))
        }
        Bson::Array(values) => format!("[{}]", values.iter().map(compact).collect::<Vec<_>>().join(", ")),
        other => other.clone().into_relaxed_extjson().to_string(),
    }
}

fn quoted(name: &str) -> String {
    serde_json::Value::from(name).to_string()
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;

    #[test]
    fn documents_are_written_in_their_order_and_over_lines_where_they_are_long() {
        let id = bson::oid::ObjectId::parse_str("656565656565656565656565").expect("an id");
        let short = doc! { "b": 1, "a": { "$in": [1_i64, 2.5, "x\"", id] }, "c": {} };
        assert_eq!(
            pretty(&short.into(), 4),
            r#"{ "b": 1, "a": { "$in": [1, 2.5, "x\"", {"$oid":"656565656565656565656565"}] }, "c": {} }"#
        );
        let long = doc! { "$or": [{ "a": "x".repeat(60) }, { "b": "y".repeat(60) }] };
        let expected = format!(
            "{{\n      \"$or\": [\n        {{ \"a\": \"{}\" }},\n        {{ \"b\": \"{}\" }}\n      ]\n    }}",
            "x".repeat(60),
            "y".repeat(60)
        );
        assert_eq!(pretty(&long.into(), 4), expected);
    }
}
