//! `tailwater check`: everything that can be known to be wrong before MongoDB is contacted, all of it at once.

mod explain;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::{EXIT_USAGE, refuse};
use crate::config::Config;
use crate::lane::config::{Backlog, Keep};
use crate::output::{plugin_folder, prepare};
use crate::source::config::FullDocument;
use tailwater_match::Matcher;

/// `tailwater check …`
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The config file.
    #[arg(long, value_name = "FILE", default_value = "config.toml")]
    pub config: PathBuf,
    /// Also show what MongoDB is asked to filter, and what is left to each output.
    #[arg(long)]
    pub explain: bool,
}

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

/// Checks a config file, its plugins, their options and every `match`. Exit code 64 when something is wrong; then nothing is
/// explained.
pub fn check(args: &CheckArgs) -> ExitCode {
    let path = &args.config;
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(error) => return refuse(&error),
    };
    let folder = match plugin_folder(&config) {
        Ok(folder) => folder,
        Err(error) => return refuse(&error),
    };
    let findings = examine(&config, &folder);
    for line in &findings.fine {
        println!("{line}");
    }
    for line in &findings.warnings {
        eprintln!("tailwater: warning: {}: {line}", path.display());
    }
    for line in &findings.problems {
        eprintln!("tailwater: {}: {line}", path.display());
    }
    if findings.problems.is_empty() {
        if args.explain {
            print!("{}", explain::explain(&config));
        }
        println!("ok");
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_USAGE)
    }
}

fn examine(config: &Config, folder: &Path) -> Findings {
    let mut findings = Findings::default();
    for output in &config.outputs {
        let name = &output.name;
        if !output.enabled {
            findings.fine.push(format!("outputs.{name}: not enabled"));
            continue;
        }
        match prepare(output, folder) {
            Ok(prepared) => {
                let plugin = prepared.library.descriptor();
                let kind = if plugin.broadcast { ", broadcast: no checkpoint, always in strict order" } else { "" };
                findings.fine.push(format!("outputs.{name}: plugin {} {}{kind}", plugin.name, plugin.version));
                let delivers_all = Backlog { keep: Keep::All, max_age: None };
                if plugin.broadcast && output.backlog != delivers_all {
                    findings.warnings.push(format!(
                        "outputs.{name}.backlog: has no effect: a broadcast output is given every event, or its clients could \
                         not resume; remove it"
                    ));
                }
            }
            Err(problems) => findings.problems.extend(problems.iter().map(ToString::to_string)),
        }
        let read_late = config.source.full_document == FullDocument::UpdateLookup;
        let matcher = output.query.as_ref().and_then(|query| Matcher::compile(query).ok());
        if read_late && matcher.is_some_and(|matcher| reads_full_document(&matcher)) {
            findings.warnings.push(format!(
                "outputs.{name}.match: with source.full_document = \"update_lookup\" a match on fullDocument is decided \
                 when the event is read, not when it happened, so a restart may decide it otherwise; use \
                 \"when_available\" with post-images for the same answer every time"
            ));
        }
    }
    findings
}

/// Whether a query looks into `fullDocument`, however deep in `$and`, `$or` and their like.
fn reads_full_document(matcher: &Matcher) -> bool {
    matcher.fields().any(|field| field == "fullDocument")
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
            (doc! { "$nor": [{ "fullDocument.a": { "$not": { "$gt": 1 } } }] }, true),
            (doc! { "fullDocumentBeforeChange.status": "open" }, false),
            (doc! { "operationType": "fullDocument" }, false),
            (doc! { "$or": [{ "ns.db": "fullDocument" }] }, false),
        ];
        for (query, expected) in table {
            let matcher = Matcher::compile(&query).expect("a query");
            assert_eq!(reads_full_document(&matcher), expected, "{query}");
        }
    }
}
