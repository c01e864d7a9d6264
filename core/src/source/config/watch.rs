//! `source.watch`: which namespaces are watched.

use crate::config::entry::Entry;
use crate::config::error::ConfigError;

/// Databases that are never watched: Tailwater's own, and MongoDB's internal ones.
pub(crate) const REFUSED: [&str; 4] = ["tailwater", "admin", "local", "config"];

/// One entry of `watch`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Watched {
    /// `"*"`: every database but the refused ones.
    Everything,
    /// `"db.*"`: every collection of one database.
    Database(String),
    /// `"db.collection"`.
    Collection {
        /// The database.
        db: String,
        /// The collection; may contain dots.
        coll: String,
    },
}

/// Reads the array.
///
/// # Errors
/// Empty, a wrong, refused or repeated entry.
pub fn read(entry: &Entry<'_>) -> Result<Vec<Watched>, ConfigError> {
    let mut watched = Vec::new();
    for member in entry.array("[\"db.collection\"]")? {
        let text = member.string()?;
        let one = parse(&text).map_err(|message| member.error(message))?;
        if watched.contains(&one) {
            return Err(member.error(format!("\"{text}\" is there twice, remove one")));
        }
        watched.push(one);
    }
    if watched.is_empty() {
        return Err(entry.error("empty, write \"db.collection\", \"db.*\" or \"*\""));
    }
    if watched.len() > 1 && watched.contains(&Watched::Everything) {
        return Err(entry.error("\"*\" already contains the others, write it alone"));
    }
    Ok(watched)
}

fn parse(text: &str) -> Result<Watched, String> {
    if text == "*" {
        return Ok(Watched::Everything);
    }
    let shape = || format!("\"{text}\" is not a namespace, write \"db.collection\", \"db.*\" or \"*\"");
    let (db, coll) = text.split_once('.').ok_or_else(shape)?;
    // https://www.mongodb.com/docs/manual/reference/limits/#naming-restrictions
    let bad_db = |character: char| "/\\. \"$*<>:|?\0".contains(character);
    if db.is_empty() || db.len() > 63 || db.contains(bad_db) || coll.is_empty() || text.len() > 255 {
        return Err(shape());
    }
    if REFUSED.contains(&db) {
        return Err(format!("database \"{db}\" cannot be watched, remove \"{text}\""));
    }
    if coll == "*" {
        return Ok(Watched::Database(db.to_owned()));
    }
    if coll.contains(['$', '\0', '*']) || coll.starts_with("system.") {
        return Err(shape());
    }
    Ok(Watched::Collection { db: db.to_owned(), coll: coll.to_owned() })
}
