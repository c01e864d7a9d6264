//! `project` of an output: read, and refused where two of its paths cannot both hold. The key is a secret: it is turned into what
//! hashes at once, and no error shows it.

use std::collections::BTreeMap;

use ring::hmac;
use toml::de::DeValue;

use super::tree::{Rule, is_number};
use super::{Path, Projection, Redact, Rules};
use crate::config::entry::Entry;
use crate::config::error::ConfigError;
use crate::config::section::Section;

/// The keys of `project`.
pub const KEYS: &[&str] = &["include", "exclude", "rename", "redact", "hash_key", "mask"];

/// Paths of one projection, all together.
const PATHS_MAX: usize = 1000;

/// Parts of one path.
const PARTS_MAX: usize = 64;

/// Longest mask: it may stand in an event many times.
const MASK_BYTES_MAX: usize = 256;

/// Shortest and longest `hash_key`.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 16..=4096;

/// What outputs cannot do without.
const RESERVED: [&str; 3] = ["_id", "operationType", "ns"];

/// The parts of an event that carry fields of the document.
const CARRIERS: [&str; 3] = ["documentKey", "fullDocumentBeforeChange", "updateDescription"];

const DOCUMENT: &str = "fullDocument";

impl Projection {
    /// Reads `project`.
    ///
    /// # Errors
    /// A wrong value, or two paths that cannot both hold.
    pub fn read(section: &Section<'_>) -> Result<Projection, ConfigError> {
        let mut read = Read { paths: BTreeMap::new() };
        if section.get("include").is_some() && section.get("exclude").is_some() {
            return Err(section.error("include and exclude are both there, write one of them"));
        }
        for (key, rule) in [("include", Rule::Include), ("exclude", Rule::Exclude)] {
            let Some(entry) = section.get(key) else { continue };
            let paths = entry.array("[\"fullDocument.status\"]")?;
            if paths.is_empty() {
                return Err(entry.error("is empty, name a path or remove it"));
            }
            for entry in paths {
                read.add(&entry.string()?, rule.clone(), &entry)?;
            }
        }
        for (path, entry) in pairs(section, "redact")? {
            let how = entry.choice(&[("hash", Redact::Hash), ("mask", Redact::Mask)])?;
            read.add(&path, Rule::Redact(how), &entry)?;
        }
        for (path, entry) in pairs(section, "rename")? {
            let name = new_name(&entry)?;
            read.add(&path, Rule::Rename(name.into_bytes().into()), &entry)?;
        }
        if read.paths.is_empty() {
            return Err(section.error("says nothing, write include, exclude, redact or rename, or remove it"));
        }
        read.check(section)?;
        let hashes = read.has(|rule| *rule == Rule::Redact(Redact::Hash));
        let redacts = read.has(|rule| matches!(rule, Rule::Redact(_)));
        let (key, mask) = (hash_key(section, hashes)?, mask(section, redacts)?);
        let includes = read.has(|rule| *rule == Rule::Include);
        let rules =
            read.paths.into_iter().flat_map(|(path, said)| said.into_iter().map(move |rule| (path.clone(), rule)));
        let rules = rules.map(|(path, rule)| (path.iter().map(|part| part.as_bytes().into()).collect::<Path>(), rule));
        Ok(Projection::new(Rules { rules: rules.collect(), includes, mask, key }))
    }
}

/// The pairs of a table whose keys are paths.
fn pairs<'a>(section: &Section<'a>, key: &str) -> Result<Vec<(String, Entry<'a>)>, ConfigError> {
    let Some(entry) = section.get(key) else { return Ok(Vec::new()) };
    let pairs = entry.free_section()?.entries();
    if pairs.is_empty() {
        return Err(entry.error("is empty, name a path or remove it"));
    }
    if let Some((_, entry)) = pairs.iter().find(|(_, entry)| matches!(entry.value(), DeValue::Table(_))) {
        return Err(entry.error("is a table, put the whole path in quotes, such as \"fullDocument.email\" = …"));
    }
    Ok(pairs)
}

fn new_name(entry: &Entry<'_>) -> Result<String, ConfigError> {
    let name = entry.string()?;
    let why = match name.as_str() {
        "" => "is empty, write the new name of the field",
        _ if name.contains('.') => "has a dot, write the new name of the field without the path: it stays in its place",
        _ if name.contains('\0') => "has a zero in it, write a name without",
        _ if name.starts_with('$') => "begins with $, write another name",
        _ if is_number(name.as_bytes()) => "is a number, which names places in arrays, write another name",
        _ => return Ok(name),
    };
    Err(entry.error(format!("\"{name}\" {why}").replace('\0', "\\0")))
}

fn hash_key(section: &Section<'_>, hashes: bool) -> Result<Option<hmac::Key>, ConfigError> {
    let Some(entry) = section.get("hash_key") else {
        let missing = "redact says \"hash\", which needs a key, add hash_key = \"${REDACT_KEY}\"";
        return if hashes { Err(section.error(missing)) } else { Ok(None) };
    };
    let key = entry.string()?;
    if !KEY_BYTES.contains(&key.len()) {
        let (low, high) = KEY_BYTES.into_inner();
        let long = if key.len() < low { "short" } else { "long" };
        return Err(
            entry.error(format!("is too {long}, write {low} to {high} bytes, such as openssl rand -base64 32 makes"))
        );
    }
    if !hashes {
        return Err(entry.error("has no effect: no path of redact says \"hash\"; remove it"));
    }
    Ok(Some(hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes())))
}

fn mask(section: &Section<'_>, redacts: bool) -> Result<String, ConfigError> {
    let Some(entry) = section.get("mask") else { return Ok("[redacted]".to_owned()) };
    let mask = entry.string()?;
    if mask.len() > MASK_BYTES_MAX {
        return Err(entry.error(format!("is too long, write at most {MASK_BYTES_MAX} bytes")));
    }
    if !redacts {
        return Err(entry.error("has no effect: there is no redact; remove it"));
    }
    Ok(mask)
}

/// The paths so far, and what is said of each.
struct Read {
    paths: BTreeMap<Vec<String>, Vec<Rule>>,
}

impl Read {
    fn add(&mut self, text: &str, rule: Rule, entry: &Entry<'_>) -> Result<(), ConfigError> {
        let refuse = |why: String| Err(entry.error(format!("\"{text}\" {why}").replace('\0', "\\0")));
        let path: Vec<String> = text.split('.').map(str::to_owned).collect();
        let (top, below) = (path[0].as_str(), path.get(1..).unwrap_or_default());
        if path.iter().any(String::is_empty) {
            return refuse("has an empty part, write a path such as \"fullDocument.status\"".to_owned());
        }
        if text.contains('\0') || path.len() > PARTS_MAX {
            return refuse(format!("is no path, write at most {PARTS_MAX} names with dots between them"));
        }
        if RESERVED.contains(&top) {
            return refuse(format!("cannot be named: outputs need {}, which always stay", RESERVED.join(", ")));
        }
        if CARRIERS.contains(&top) && !below.is_empty() {
            return refuse(format!(
                "is a field of the document, write \"{DOCUMENT}.{}\": that means the field wherever the event carries it",
                below.iter().skip(usize::from(below[0] == "updatedFields")).cloned().collect::<Vec<_>>().join(".")
            ));
        }
        if let Some(number) = path.iter().find(|part| is_number(part.as_bytes())) {
            return refuse(format!(
                "has the number {number} in it, leave it out: a path goes through all places of an array"
            ));
        }
        match rule {
            Rule::Redact(_)
                if top != "documentKey" && below.is_empty() && (top == DOCUMENT || CARRIERS.contains(&top)) =>
            {
                return refuse("cannot be redacted as a whole, exclude it or redact fields of it".to_owned());
            }
            Rule::Rename(_) if below.is_empty() => {
                return refuse(
                    "is a part of the event, which outputs know by its name; rename fields below it".to_owned(),
                );
            }
            _ => {}
        }
        let said = self.paths.entry(path).or_default();
        if said.iter().any(|other| std::mem::discriminant(other) == std::mem::discriminant(&rule)) {
            return refuse("is there twice, remove one".to_owned());
        }
        said.push(rule);
        let count: usize = self.paths.values().map(Vec::len).sum();
        if count > PATHS_MAX {
            return refuse(format!("is one path too many, write at most {PATHS_MAX}"));
        }
        Ok(())
    }

    fn has(&self, is: impl Fn(&Rule) -> bool) -> bool {
        self.paths.values().flatten().any(is)
    }

    /// Paths that contradict each other, or of which one makes the other useless.
    fn check(&self, section: &Section<'_>) -> Result<(), ConfigError> {
        for (path, said) in &self.paths {
            let excluded = |said: &[Rule]| said.contains(&Rule::Exclude);
            let redacted = |said: &[Rule]| said.iter().any(|rule| matches!(rule, Rule::Redact(_)));
            let included = |said: &[Rule]| said.contains(&Rule::Include);
            let name = path.join(".");
            if excluded(said) && said.len() > 1 {
                return Err(section.error(format!("\"{name}\" is excluded, and redacted or renamed too, remove one")));
            }
            for (above, of_above) in (1..path.len()).filter_map(|len| self.paths.get_key_value(&path[..len])) {
                let above = above.join(".");
                let why = match () {
                    () if excluded(of_above) => "is excluded with all that is in it",
                    () if redacted(of_above) => "is redacted as one value",
                    () if included(of_above) && included(said) => "is included with all that is in it",
                    () => continue,
                };
                return Err(
                    section.error(format!("\"{name}\" is inside of \"{above}\", which {why}; remove one of them"))
                );
            }
            if !self.is_included(path) {
                return Err(section.error(format!(
                    "\"{name}\" is not included, so nothing comes of what is said of it; include it too"
                )));
            }
        }
        self.check_new_names(section)
    }

    /// Whether something of the path can be there at all.
    fn is_included(&self, path: &[String]) -> bool {
        let includes = |(_, said): &(&Vec<String>, &Vec<Rule>)| said.contains(&Rule::Include);
        let mut included = self.paths.iter().filter(includes).map(|(path, _)| path).peekable();
        if included.peek().is_none() {
            return true;
        }
        // A part that is included as a whole carries fields of the document.
        let carries = |part: &[String]| path[0] == DOCUMENT && part.len() == 1 && CARRIERS.contains(&part[0].as_str());
        included.any(|other| other.starts_with(path) || path.starts_with(other) || carries(other))
    }

    fn check_new_names(&self, section: &Section<'_>) -> Result<(), ConfigError> {
        let new_name = |said: &[Rule]| {
            said.iter().find_map(|rule| match rule {
                Rule::Rename(name) => Some(String::from_utf8_lossy(name).into_owned()),
                _ => None,
            })
        };
        for (path, said) in &self.paths {
            let Some(name) = new_name(said) else { continue };
            let Some((_, parent)) = path.split_last() else { continue };
            for (other, of_other) in &self.paths {
                if other == path || !other.starts_with(parent) || other.len() == parent.len() {
                    continue;
                }
                let is_whole = other.len() == path.len();
                let renamed = if is_whole { new_name(of_other) } else { None };
                let gone = is_whole && (of_other.contains(&Rule::Exclude) || renamed.is_some());
                let clash = renamed.as_ref() == Some(&name)
                    || (!gone && other[parent.len()] == name && !self.is_renamed(&other[..path.len()]));
                if clash {
                    let (path, other) = (path.join("."), other.join("."));
                    return Err(section.error(format!(
                        "\"{path}\" is renamed to \"{name}\", which \"{other}\" is called too; choose another name"
                    )));
                }
            }
        }
        Ok(())
    }

    fn is_renamed(&self, path: &[String]) -> bool {
        self.paths.get(path).is_some_and(|said| said.iter().any(|rule| matches!(rule, Rule::Rename(_))))
    }
}
