//! Templates of text and plain paths, which are nearly all: `orders-{{ fullDocument.userId }}`. Their fields are looked up in the raw
//! BSON and written at once. The texts are those that minijinja would give, and what minijinja would read otherwise is left to it.

use minijinja::Value as Printed;
use tailwater_raw::{Damaged, Value, json::Plain, kind};

use super::{Escape, NO_TEXT, RENDERED_BYTES_MAX, Scope, too_long};

/// A template as its pieces.
#[derive(Debug)]
pub(super) struct Pieces(Vec<Piece>);

#[derive(Debug, PartialEq)]
enum Piece {
    Text(String),
    /// `{{ path }}`, or `{{ path | default('text') }}`.
    Path {
        path: String,
        default: Option<String>,
    },
}

/// Something found in an event.
#[derive(Debug, Clone, Copy)]
pub(super) enum Found<'a> {
    Raw(Value<'a>),
    Text(&'a str),
    Number(u32),
}

/// Words that are no names where an expression begins.
const WORDS: [&str; 17] = [
    "true", "True", "false", "False", "none", "None", "not", "and", "or", "in", "is", "if", "else", "loop", "self",
    "super", "caller",
];

impl Pieces {
    /// `None` where the template has anything else, or begins a path with the name of something that minijinja knows itself.
    pub(super) fn parse(source: &str, is_global: impl Fn(&str) -> bool) -> Option<Pieces> {
        // minijinja drops one line end from the end.
        if source.ends_with(['\n', '\r']) {
            return None;
        }
        let mut pieces = Vec::new();
        let mut rest = source;
        while let Some(at) = rest.find("{{") {
            let (text, expression) = (&rest[..at], &rest[at + 2..]);
            let (piece, behind) = expression_piece(expression)?;
            if let Piece::Path { path, .. } = &piece {
                let root = path.split('.').next().unwrap_or_default();
                if WORDS.contains(&root) || is_global(root) {
                    return None;
                }
            }
            pieces.extend([Piece::Text(text.to_owned()), piece]);
            rest = behind;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        let is_literal = |piece: &Piece| match piece {
            Piece::Text(text) => !text.contains("{%") && !text.contains("{#"),
            Piece::Path { .. } => true,
        };
        pieces.iter().all(is_literal).then_some(Pieces(pieces))
    }

    /// The text for one event, not yet checked for its place.
    pub(super) fn render(&self, scope: &Scope<'_>, escape: Escape) -> Result<String, String> {
        let mut text = String::new();
        for piece in &self.0 {
            let written = match piece {
                Piece::Text(literal) => {
                    text.push_str(literal);
                    Ok(())
                }
                Piece::Path { path, default } => match (find(scope, path)?, default) {
                    (Some(found), _) => write(found, path, escape, &mut text)?,
                    (None, Some(default)) => escape.write(default, &mut text),
                    (None, None) => return Err(missing(path)),
                },
            };
            if written.is_err() || text.len() > RENDERED_BYTES_MAX {
                return Err(too_long());
            }
        }
        Ok(text)
    }
}

/// What stands behind `{{`, and what behind its `}}`.
fn expression_piece(expression: &str) -> Option<(Piece, &str)> {
    let mut rest = blanks(expression);
    let mut path = String::new();
    loop {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let (name, behind) = rest.split_at(rest.find(|c| !is_word(c)).unwrap_or(rest.len()));
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        }
        path.push_str(name);
        match behind.strip_prefix('.') {
            Some(behind) => (path.push('.'), rest = behind).1,
            None => {
                rest = blanks(behind);
                break;
            }
        }
    }
    if let Some(behind) = rest.strip_prefix("}}") {
        return Some((Piece::Path { path, default: None }, behind));
    }
    let call = blanks(rest.strip_prefix('|')?);
    let argument = blanks(blanks(call.strip_prefix("default")?).strip_prefix('(')?);
    let quote = argument.chars().next().filter(|quote| matches!(quote, '\'' | '"'))?;
    let (default, behind) = argument[1..].split_once(quote)?;
    if default.contains('\\') {
        return None;
    }
    let behind = blanks(blanks(behind).strip_prefix(')')?).strip_prefix("}}")?;
    Some((Piece::Path { path, default: Some(default.to_owned()) }, behind))
}

fn blanks(text: &str) -> &str {
    text.trim_start_matches([' ', '\t'])
}

/// What the path leads to. As in minijinja a field of what is there, but is no document, is not there; a field of what is not there is
/// an error, which no default mends.
fn find<'a>(scope: &Scope<'a>, path: &str) -> Result<Option<Found<'a>>, String> {
    let mut names = path.split('.');
    let root = names.next().unwrap_or_default();
    let mut found = scope.field(root).map_err(|damaged| damaged.to_string())?;
    for name in names {
        let Some(inner) = found else { return Err(missing(path)) };
        found = inner.field(name).map_err(|damaged| damaged.to_string())?;
    }
    Ok(found)
}

impl<'a> Found<'a> {
    fn field(self, name: &str) -> Result<Option<Found<'a>>, Damaged> {
        let Self::Raw(value) = self else { return Ok(None) };
        Ok(match (value.kind(), name) {
            (kind::DOCUMENT, _) => {
                value.elements().find_last(name.as_bytes())?.map(|element| Found::Raw(element.value))
            }
            (kind::TIMESTAMP, "t") => Some(Found::Number((value.int64() as u64 >> 32) as u32)),
            (kind::TIMESTAMP, "i") => Some(Found::Number(value.int64() as u32)),
            (kind::CODE_WITH_SCOPE, "code") => Some(Found::Raw(value.code_with_scope().0)),
            (kind::CODE_WITH_SCOPE, "scope") => Some(Found::Raw(value.code_with_scope().1)),
            (kind::DB_POINTER, "ref") => {
                Some(Found::Text(std::str::from_utf8(value.db_pointer().0).map_err(|_| Damaged::Text)?))
            }
            (kind::DB_POINTER, "id") => Some(Found::Raw(Value::new(kind::OBJECT_ID, value.db_pointer().1))),
            _ => None,
        })
    }
}

fn write(found: Found<'_>, path: &str, escape: Escape, out: &mut String) -> Result<std::fmt::Result, String> {
    let plain = match found {
        Found::Raw(value) => Plain::of(value).map_err(|damaged| damaged.to_string())?,
        Found::Text(text) => return Ok(escape.write(text, out)),
        Found::Number(number) => return Ok(escape.write(&number.to_string(), out)),
    };
    let no_text = |what: &str| Err(format!("{path}: {NO_TEXT}{what}, which is no text"));
    match plain {
        Plain::Text(text) => Ok(escape.write(&text, out)),
        Plain::Integer(integer) => Ok(escape.write(&integer.to_string(), out)),
        Plain::Boolean(boolean) => Ok(escape.write(if boolean { "true" } else { "false" }, out)),
        // minijinja's text of it, not ours.
        Plain::Double(double) => Ok(escape.write(&Printed::from(double).to_string(), out)),
        Plain::Null => no_text("none"),
        Plain::Array(_) => no_text("sequence"),
        Plain::Document(_) | Plain::Timestamp(..) | Plain::CodeWithScope(..) | Plain::DbPointer(..) => no_text("map"),
    }
}

fn missing(path: &str) -> String {
    format!("{path} is not in the event")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_text_and_plain_paths_are_taken() {
        let path =
            |path: &str, default: Option<&str>| Piece::Path { path: path.into(), default: default.map(Into::into) };
        let text = |text: &str| Piece::Text(text.into());
        for (source, pieces) in [
            ("orders-{{ fullDocument.userId }}", vec![text("orders-"), path("fullDocument.userId", None), text("")]),
            (
                "{{ns.db}}.{{ ns.coll\t}}",
                vec![text(""), path("ns.db", None), text("."), path("ns.coll", None), text("")],
            ),
            ("{{ a | default('x}}\"') }}", vec![text(""), path("a", Some("x}}\"")), text("")]),
            ("{{ a|default ( \"\" )}}}", vec![text(""), path("a", Some("")), text("}")]),
        ] {
            assert_eq!(Pieces::parse(source, |_| false).expect(source).0, pieces, "{source}");
        }
        for source in [
            "{{ a }}\n",
            "{{- a }}",
            "{{ a -}}",
            "{{ a",
            "{{ a. }}",
            "{{ a.0 }}",
            "{{ a[0] }}",
            "{{ a() }}",
            "{{ a | upper }}",
            "{{ a | default(b) }}",
            "{{ a | default('\\n') }}",
            "{{ a | default('b') | upper }}",
            "{{ a | default('b', true) }}",
            "{{ true }}",
            "{{ none.a }}",
            "{{ not a }}",
            "{{ 1 }}",
            "{{ 'a' }}",
            "{{ a b }}",
            "{{ }}",
            "{{ é }}",
            "{{ a\n}}",
            "{# a #}{{ a }}",
            "{{ a }}{% if a %}{% endif %}",
            "{{ range }}",
            "{{ range.a }}",
        ] {
            assert!(Pieces::parse(source, |name| name == "range").is_none(), "{source}");
        }
    }
}
