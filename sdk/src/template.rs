//! Templates over a change event: `"orders-{{ fullDocument.userId }}"`. Owns the one dialect that every option called topic,
//! channel, event or url speaks.
//!
//! The dialect is minijinja's without macros and imports. A template sees the event as its `plain` JSON has it, whatever form the
//! output delivers: an ObjectId is its hex string and a date is RFC 3339, which is what a name is made of. What would print nothing
//! useful is an error instead: a field that is not there, null, a list, a document.
//!
//! No JSON is made for it. A template of text and paths looks its fields up in the raw BSON (`path`); of any other, minijinja is
//! given copies of the fields that it names, which are read as far as it looks into them (`lazy`).
//!
//! Errors say the template and the path, and never a value of the document.

mod cache;
mod escape;
mod lazy;
mod names;
mod path;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;

use minijinja::{Environment, ErrorKind, UndefinedBehavior, Value};
use tailwater_raw::{Damaged, Elements};

pub use self::escape::Escape;
use self::{
    lazy::Copied,
    names::{Kind, longest_tag, names, words},
    path::Pieces,
};
use crate::{DeliverError, Event, Verdict};

/// Longest text that a template may render, in bytes.
pub const RENDERED_BYTES_MAX: usize = 64 << 10;

/// Longest template, in bytes.
pub const SOURCE_BYTES_MAX: usize = 16 << 10;

/// Most bytes between the marks of a tag. minijinja's compiler goes down the stack once for each link of a chain such as `a.a.a`.
const TAG_BYTES_MAX: usize = 1 << 10;

/// What one rendering may take, in minijinja's instructions; each stands for 64 bytes of text, too. A loop over a long list ends here.
const FUEL: u64 = 100_000;

/// The name under which each environment keeps its only template.
const NAME: &str = "template";

/// A compiled template. Cheap to render and to clone, may be shared between threads. The same source is compiled once in a process.
#[derive(Debug, Clone)]
pub struct Template(Arc<Compiled>);

#[derive(Debug)]
struct Compiled {
    source: String,
    escape: Escape,
    kind: Rendering,
}

/// How a template becomes text.
#[derive(Debug)]
enum Rendering {
    /// It has no expressions.
    Constant,
    /// Text and paths, looked up without minijinja.
    Pieces(Pieces),
    /// Everything else.
    Minijinja {
        environment: Box<Environment<'static>>,
        /// The fields of the event that it may look at.
        fields: BTreeSet<String>,
    },
}

impl Template {
    /// Compiles `source`.
    ///
    /// # Errors
    /// Where it is not a template, or its literal text cannot go where it is to go; a second try cannot help. An unknown filter, test
    /// or function is found here, too.
    pub fn compile(source: &str, escape: Escape) -> Result<Self, TemplateError> {
        cache::get_or_compile(source, escape, || Compiled::new(source, escape)).map(Self)
    }

    /// As it was written.
    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// The text that it always renders; `None` where it has expressions.
    pub fn constant(&self) -> Option<&str> {
        matches!(self.0.kind, Rendering::Constant).then_some(&self.0.source)
    }

    /// The text for one event.
    ///
    /// # Errors
    /// Where an expression has no value that can be text, or the text cannot go where it is to go. It converts into the right
    /// verdict: no second try can help.
    pub fn render(&self, scope: &Scope<'_>) -> Result<String, TemplateError> {
        let compiled = &*self.0;
        let text = match &compiled.kind {
            Rendering::Constant => return Ok(compiled.source.clone()),
            Rendering::Pieces(pieces) => pieces.render(scope, compiled.escape),
            Rendering::Minijinja { environment, fields } => render(environment, fields, scope),
        };
        text.and_then(|text| compiled.escape.check(&text).map(|()| text))
            .map_err(|reason| TemplateError(format!("render {:?}: {reason}", compiled.source)))
    }
}

impl Compiled {
    fn new(source: &str, escape: Escape) -> Result<Self, TemplateError> {
        let refused = |reason: &dyn fmt::Display| TemplateError(format!("compile template {source:?}: {reason}"));
        if source.len() > SOURCE_BYTES_MAX {
            return Err(refused(&format_args!("it has more than {SOURCE_BYTES_MAX} bytes")));
        }
        if longest_tag(source) > TAG_BYTES_MAX {
            return Err(refused(&format_args!("it has more than {TAG_BYTES_MAX} bytes between two marks of a tag")));
        }
        let environment = environment(source, escape).map_err(|error| refused(&described(&error, true)))?;
        if let Some((what, name)) = unknown_name(source, &environment) {
            return Err(refused(&format_args!("there is no {what} {name}")));
        }
        let kind = if !["{{", "{%", "{#"].iter().any(|mark| source.contains(mark)) {
            escape.check(source).map_err(|reason| refused(&reason))?;
            Rendering::Constant
        } else if let Some(pieces) = Pieces::parse(source, |name| environment.globals().any(|(other, _)| other == name))
        {
            Rendering::Pieces(pieces)
        } else {
            Rendering::Minijinja { environment: Box::new(environment), fields: words(source) }
        };
        Ok(Self { source: source.to_owned(), escape, kind })
    }
}

/// minijinja with this template in it.
fn environment(source: &str, escape: Escape) -> Result<Environment<'static>, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    environment.set_fuel(Some(FUEL));
    environment.set_formatter(move |out, _, value| {
        if value.is_undefined() {
            return Err(ErrorKind::UndefinedError.into());
        }
        let text = scalar(value)?;
        let written = if value.is_safe() { out.write_str(&text) } else { escape.write(&text, out) };
        written.map_err(Into::into)
    });
    environment.add_template_owned(NAME, source.to_owned())?;
    // They make HTML, and would switch the escaping of addresses off.
    environment.remove_filter("escape");
    environment.remove_filter("e");
    Ok(environment)
}

/// Names are looked up as they are met, which may be in the branch of an `if` that is seldom taken: all are tried now.
fn unknown_name<'s>(source: &'s str, environment: &Environment<'_>) -> Option<(&'static str, &'s str)> {
    for (kind, name) in names(source) {
        let (what, expression) = match kind {
            Kind::Filter => ("filter", format!("0 | {name}")),
            Kind::Test => ("test", format!("0 is {name}")),
            Kind::Function => ("function", format!("{name}()")),
        };
        let tried = environment.compile_expression(&expression).and_then(|expression| expression.eval(()));
        let unknown = [ErrorKind::UnknownFilter, ErrorKind::UnknownTest, ErrorKind::UnknownFunction];
        if tried.is_err_and(|error| unknown.contains(&error.kind())) {
            return Some((what, name));
        }
    }
    None
}

/// By minijinja.
fn render(environment: &Environment<'_>, fields: &BTreeSet<String>, scope: &Scope<'_>) -> Result<String, String> {
    let context = scope.values(fields).map_err(|damaged| damaged.to_string())?;
    let mut text = Bounded(Vec::new());
    let template = environment.get_template(NAME).map_err(|error| described(&error, false))?;
    template.render_captured_to(context, &mut text).map_err(|error| described(&error, false))?;
    String::from_utf8(text.0).map_err(|_| "it gives what is no text".to_owned())
}

/// What the templates of one event see.
pub struct Scope<'a> {
    id: &'a str,
    raw: &'a [u8],
    /// What minijinja has been given, by name; one copy of a field serves all templates of the event.
    copied: RefCell<BTreeMap<String, Option<Value>>>,
}

impl<'a> Scope<'a> {
    /// Reads nothing yet.
    pub fn of(event: Event<'a>) -> Self {
        Self::of_raw(event.id(), event.raw())
    }

    /// For who has no event: its id, and its BSON.
    pub fn of_raw(id: &'a str, raw: &'a [u8]) -> Self {
        Self { id, raw, copied: RefCell::default() }
    }

    /// The values of these fields, for minijinja.
    fn values(&self, fields: &BTreeSet<String>) -> Result<Value, Damaged> {
        let mut copied = self.copied.borrow_mut();
        for name in fields {
            if !copied.contains_key(name) {
                let value = match self.field(name)? {
                    Some(path::Found::Text(text)) => Some(Value::from(text)),
                    Some(path::Found::Raw(value)) => Some(Copied::value(value)),
                    Some(path::Found::Number(number)) => Some(Value::from(number)),
                    None => None,
                };
                copied.insert(name.clone(), value);
            }
        }
        let values = fields.iter().filter_map(|name| Some((name.clone(), copied.get(name)?.clone()?)));
        Ok(values.collect::<BTreeMap<String, Value>>().into())
    }

    /// A field of the event as its JSON has it: `id` is the event's, and there is no `_id`.
    fn field(&self, name: &str) -> Result<Option<path::Found<'a>>, Damaged> {
        match name {
            "id" => Ok(Some(path::Found::Text(self.id))),
            "_id" => Ok(None),
            _ => {
                let element = Elements::checked(self.raw)?.find_last(name.as_bytes())?;
                Ok(element.map(|element| path::Found::Raw(element.value)))
            }
        }
    }
}

/// Without the document.
impl fmt::Debug for Scope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A template that cannot be compiled or rendered. Deliberately no [`std::error::Error`]: `?` gives the right verdict, which is that the
/// event is rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateError(String);

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<TemplateError> for Verdict {
    fn from(error: TemplateError) -> Self {
        Self::reject(error)
    }
}

/// For a batch of one; others give each event its own [`Verdict`].
impl From<TemplateError> for DeliverError {
    fn from(error: TemplateError) -> Self {
        Self::reject(error)
    }
}

/// For [`Output::validate`](crate::Output::validate).
impl From<TemplateError> for crate::Error {
    fn from(error: TemplateError) -> Self {
        error.0.into()
    }
}

fn scalar(value: &Value) -> Result<String, minijinja::Error> {
    use minijinja::value::ValueKind::{Bool, Number, String};
    match value.kind() {
        // As in the event's JSON, not as in Python.
        Bool => Ok(value.is_true().to_string()),
        Number | String => Ok(value.to_string()),
        kind => {
            let text = format!("{NO_TEXT}{kind}, which is no text");
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, text))
        }
    }
}

/// How our own words for an operation that cannot be begin.
const NO_TEXT: &str = "an expression gives ";

/// An error of minijinja on one line: what, and the line of the template where it has several. When an event was rendered, minijinja's
/// own details are left out: they may hold its values.
fn described(error: &minijinja::Error, compiling: bool) -> String {
    let detail = error.detail().filter(|detail| compiling || detail.starts_with(NO_TEXT));
    let mut text = match error.kind() {
        ErrorKind::UndefinedError => "a field of an expression is not in the event".to_owned(),
        ErrorKind::OutOfFuel => TOO_MANY_STEPS.to_owned(),
        ErrorKind::WriteFailure => too_long(),
        ErrorKind::BadSerialization => "the event is damaged".to_owned(),
        ErrorKind::InvalidOperation | ErrorKind::SyntaxError => {
            detail.unwrap_or("a value does not fit what is done with it").to_owned()
        }
        kind => detail.map_or_else(|| kind.to_string(), |detail| format!("{kind}: {detail}")),
    };
    if let Some(line) = error.line().filter(|line| *line > 1) {
        text.push_str(&format!(" (line {line})"));
    }
    text.replace(['\n', '\r'], " ")
}

const TOO_MANY_STEPS: &str = "it takes too many steps";

fn too_long() -> String {
    format!("it gives more than {RENDERED_BYTES_MAX} bytes")
}

struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > RENDERED_BYTES_MAX {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
