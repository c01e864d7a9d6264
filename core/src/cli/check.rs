//! `tailwater check`: everything that can be known to be wrong before MongoDB is contacted, all of it at once.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bson::{Bson, Document};
use tailwater_match::Matcher;

use super::{EXIT_USAGE, refuse};
use crate::config::Config;
use crate::lane;
use crate::plugin::{Library, default_dir};
use crate::source::config::FullDocument;

/// What was found in a config that could be read.
#[derive(Debug, Default, PartialEq, Eq)]
struct Findings {
    /// One line per output that is fine.
    fine: Vec<String>,
    /// Legal, but likely not meant.
    warnings: Vec<String>,
    /// What keeps the daemon from starting.
    problems: Vec<String>,
}

/// Checks a config file, its plugins, their options and every `match`. Exit code 64 when something is wrong.
pub fn check(path: &Path) -> ExitCode {
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(error) => return refuse(&error),
    };
    let dir = match config.plugins.dir.clone().map_or_else(default_dir, Ok::<PathBuf, std::io::Error>) {
        Ok(dir) => dir,
        Err(error) => return refuse(&error),
    };
    let findings = examine(&config, &dir);
    for line in &findings.fine {
        println!("{line}");
    }
    for line in &findings.warnings {
        eprintln!("tailwater: warning: {line}");
    }
    for line in &findings.problems {
        eprintln!("tailwater: {line}");
    }
    if findings.problems.is_empty() {
        println!("ok");
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_USAGE)
    }
}

fn examine(config: &Config, dir: &Path) -> Findings {
    let mut findings = Findings::default();
    for output in config.outputs.iter() {
        if !output.enabled {
            findings.fine.push(format!("outputs.{}: not enabled", output.name));
            continue;
        }
        let before = findings.problems.len();
        let plugin = examine_plugin(output, dir, &mut findings.problems);
        if let Some(query) = &output.query {
            examine_match(output, query, config.source.full_document, &mut findings);
        }
        if let (Some(plugin), true) = (plugin, findings.problems.len() == before) {
            findings.fine.push(format!("outputs.{}: {plugin}", output.name));
        }
    }
    findings
}

/// Name and version of the output's plugin, when it could be loaded.
fn examine_plugin(output: &lane::config::Config, dir: &Path, problems: &mut Vec<String>) -> Option<String> {
    match Library::load(dir, &output.plugin) {
        Ok(library) => {
            if let Err(error) = library.check_options(&output.options) {
                let faults = error.faults.iter().map(|fault| format!("outputs.{}.{fault}", output.name));
                problems.extend(faults);
            }
            let descriptor = library.descriptor();
            Some(format!("plugin {} {}", descriptor.name, descriptor.version))
        }
        Err(error) => {
            problems.push(format!("outputs.{}.plugin: {error}", output.name));
            None
        }
    }
}

fn examine_match(
    output: &lane::config::Config,
    query: &Document,
    full_document: FullDocument,
    findings: &mut Findings,
) {
    if let Err(error) = Matcher::compile(query) {
        findings.problems.push(format!("outputs.{}.match: {error}", output.name));
    }
    if full_document == FullDocument::UpdateLookup && reads_full_document(query) {
        findings.warnings.push(format!(
            "outputs.{}.match: with source.full_document = \"update_lookup\" a match on fullDocument is decided when the \
             event is read, not when it happened, so a restart may decide it otherwise; use \"when_available\" with \
             post-images for the same answer every time",
            output.name
        ));
    }
}

/// Whether a query looks into `fullDocument` at any depth of `$and`, `$or` and their like.
fn reads_full_document(query: &Document) -> bool {
    query.iter().any(|(key, value)| {
        let path = key.split('.').next().unwrap_or_default();
        let below = match value {
            _ if path == "fullDocument" => return true,
            Bson::Array(items) if key.starts_with('$') => items.iter().filter_map(Bson::as_document).collect(),
            Bson::Document(inner) if key.starts_with('$') => vec![inner],
            _ => Vec::new(),
        };
        below.into_iter().any(reads_full_document)
    })
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;

    #[test]
    fn a_match_on_the_full_document_is_seen() {
        let table = [
            (doc! { "fullDocument.status": "open" }, true),
            (doc! { "fullDocument": { "$exists": true } }, true),
            (doc! { "$and": [{ "operationType": "insert" }, { "$or": [{ "fullDocument.a.b": 1 }] }] }, true),
            (doc! { "fullDocumentBeforeChange.status": "open" }, false),
            (doc! { "operationType": "fullDocument" }, false),
            (doc! { "$or": [{ "ns.db": "fullDocument" }] }, false),
        ];
        for (query, expected) in table {
            assert_eq!(reads_full_document(&query), expected, "{query}");
        }
    }
}
