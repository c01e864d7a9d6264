//! Templates over a change event: `"orders-{{ fullDocument.userId }}"`. Owns the one dialect that every option called topic,
//! channel, event or url speaks. Knows nothing of what the text is for.
//!
//! The dialect is minijinja's without macros and imports. A template sees the event's `plain` JSON, whatever form the output
//! delivers: an ObjectId is its hex string and a date is RFC 3339, which is what a name is made of. What would print nothing
//! useful is an error instead: a field that is not there, null, a list, a document.

use std::cell::OnceCell;
use std::io::{self, Write};

use minijinja::{Environment, ErrorKind, UndefinedBehavior, Value};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::{DeliverError, Event, JsonError, JsonForm, Verdict};

/// Longest text that a template may render, in bytes.
pub const RENDERED_BYTES_MAX: usize = 64 << 10;

/// Instructions that one rendering may take; a loop over a long list ends here.
const FUEL: u64 = 100_000;

/// The name under which each environment keeps its only template.
const NAME: &str = "template";

/// All but the unreserved characters of RFC 3986 §2.3.
const NOT_UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What happens to the value of an expression before it becomes text. The literal text of a template is never changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escape {
    /// Nothing.
    None,
    /// Percent-encoded, so that a value can be no more than a part of a path segment or of a query's value: a document that holds
    /// `../admin?` leads nowhere else. `|safe` switches it off for one expression.
    Url,
}

/// A compiled template. Cheap to render, may be shared between threads.
#[derive(Debug)]
pub struct Template {
    source: String,
    environment: Environment<'static>,
    constant: bool,
}

impl Template {
    /// Compiles `source`.
    ///
    /// # Errors
    /// Where it is not a template; a second try cannot help. An unknown filter is found here, too.
    pub fn compile(source: &str, escape: Escape) -> Result<Self, TemplateError> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
        environment.set_fuel(Some(FUEL));
        environment.set_formatter(move |out, _, value| {
            if value.is_undefined() {
                return Err(ErrorKind::UndefinedError.into());
            }
            let text = scalar(value)?;
            let plain = escape == Escape::None || value.is_safe();
            let written = match plain {
                true => out.write_str(&text),
                false => utf8_percent_encode(&text, NOT_UNRESERVED).try_for_each(|part| out.write_str(part)),
            };
            written.map_err(Into::into)
        });
        let refused = |error| TemplateError::permanent(format!("compile template {source:?}: {}", words(&error)));
        environment.add_template_owned(NAME, source.to_owned()).map_err(refused)?;
        // They make HTML, and would switch the escaping of addresses off.
        environment.remove_filter("escape");
        environment.remove_filter("e");
        // Filters are looked up as they are met, which may be in the branch of an `if` that is seldom taken: all are tried now.
        for filter in filters(source) {
            let expression = format!("0 | {filter}");
            let tried = environment.compile_expression(&expression).and_then(|expression| expression.eval(()));
            if tried.is_err_and(|error| error.kind() == ErrorKind::UnknownFilter) {
                return Err(TemplateError::permanent(format!(
                    "compile template {source:?}: there is no filter {filter}"
                )));
            }
        }
        let constant = !["{{", "{%", "{#"].iter().any(|mark| source.contains(mark));
        Ok(Self { source: source.to_owned(), environment, constant })
    }

    /// As it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The text that it always renders; `None` where it has expressions.
    pub fn constant(&self) -> Option<&str> {
        self.constant.then_some(&self.source)
    }

    /// The text for one event.
    ///
    /// # Errors
    /// Where an expression has no value that can be text, or the daemon cannot make the event's JSON. It converts into the right
    /// verdict: rejected where the event is at fault, delivered again where the daemon is.
    pub fn render(&self, scope: &Scope<'_>) -> Result<String, TemplateError> {
        if let Some(text) = self.constant() {
            return Ok(text.to_owned());
        }
        let document = scope.document()?;
        let refused = |error| TemplateError::permanent(format!("render {:?}: {}", self.source, words(&error)));
        let mut text = Bounded(Vec::new());
        let template = self.environment.get_template(NAME).map_err(refused)?;
        template.render_captured_to(document, &mut text).map_err(refused)?;
        String::from_utf8(text.0).map_err(TemplateError::permanent)
    }
}

/// What the templates of one event see. Its JSON is read once, when the first template asks, for any number of templates.
#[derive(Debug)]
pub struct Scope<'a> {
    event: Event<'a>,
    document: OnceCell<Value>,
}

impl<'a> Scope<'a> {
    /// Reads nothing yet.
    pub fn of(event: Event<'a>) -> Self {
        Self { event, document: OnceCell::new() }
    }

    fn document(&self) -> Result<&Value, TemplateError> {
        if let Some(document) = self.document.get() {
            return Ok(document);
        }
        let json = self.event.json_as(JsonForm::Plain).map_err(TemplateError::from)?;
        let document = serde_json::from_slice(json)
            .map_err(|error| TemplateError::permanent(format!("read the event's JSON for a template: {error}")))?;
        Ok(self.document.get_or_init(|| document))
    }
}

/// A template that cannot be compiled or rendered. Deliberately no [`std::error::Error`]: `?` gives the right verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateError {
    reason: String,
    /// `None` where the event or the template is at fault.
    passing: Option<JsonError>,
}

impl TemplateError {
    fn permanent(reason: impl std::fmt::Display) -> Self {
        Self { reason: reason.to_string(), passing: None }
    }
}

impl std::fmt::Display for TemplateError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.reason)
    }
}

impl From<JsonError> for TemplateError {
    fn from(error: JsonError) -> Self {
        Self { reason: error.to_string(), passing: (!error.is_permanent()).then_some(error) }
    }
}

impl From<TemplateError> for Verdict {
    fn from(error: TemplateError) -> Self {
        match error.passing {
            None => Self::reject(error),
            Some(json) => json.into(),
        }
    }
}

/// For a batch of one; others give each event its own [`Verdict`].
impl From<TemplateError> for DeliverError {
    fn from(error: TemplateError) -> Self {
        match error.passing {
            None => Self::reject(error),
            Some(json) => json.into(),
        }
    }
}

/// For [`Output::validate`](crate::Output::validate).
impl From<TemplateError> for crate::Error {
    fn from(error: TemplateError) -> Self {
        error.reason.into()
    }
}

/// The names behind each `|` inside a tag and outside quotes.
fn filters(source: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let (mut in_tag, mut quote) = (false, None);
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        let two = rest.get(..2).unwrap_or_default();
        rest = &rest[c.len_utf8()..];
        match quote {
            Some(_) if c == '\\' => rest = rest.strip_prefix(|_: char| true).unwrap_or_default(),
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if !in_tag => in_tag = matches!(two, "{{" | "{%"),
            None if matches!(two, "}}" | "%}") => in_tag = false,
            None if matches!(c, '"' | '\'') => quote = Some(c),
            None if c == '|' => {
                let name = rest.trim_start_matches([' ', '\t', '\n', '\r']);
                let end = name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len());
                names.push(&name[..end]);
            }
            None => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn scalar(value: &Value) -> Result<String, minijinja::Error> {
    use minijinja::value::ValueKind::{Bool, Number, String};
    match value.kind() {
        // As in the event's JSON, not as in Python.
        Bool => Ok(value.is_true().to_string()),
        Number | String => Ok(value.to_string()),
        kind => {
            let text = format!("an expression gives {kind}, which is no text");
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, text))
        }
    }
}

/// An error of minijinja on one line: what, and the line of the template where it has several.
fn words(error: &minijinja::Error) -> String {
    let mut text = match error.kind() {
        ErrorKind::UndefinedError => "a field of an expression is not in the event".to_owned(),
        ErrorKind::OutOfFuel => "it takes too many steps".to_owned(),
        ErrorKind::WriteFailure => format!("it gives more than {RENDERED_BYTES_MAX} bytes"),
        ErrorKind::InvalidOperation | ErrorKind::SyntaxError => error.detail().unwrap_or("invalid").to_owned(),
        kind => error.detail().map_or_else(|| kind.to_string(), |detail| format!("{kind}: {detail}")),
    };
    if let Some(line) = error.line().filter(|line| *line > 1) {
        text.push_str(&format!(" (line {line})"));
    }
    text.replace(['\n', '\r'], " ")
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
mod tests {
    use super::*;

    /// Renders over `json` as if it were an event.
    fn render(source: &str, escape: Escape, json: &str) -> Result<String, String> {
        let template = Template::compile(source, escape).map_err(|error| error.to_string())?;
        let document: Value = serde_json::from_str(json).expect("JSON");
        let mut text = Bounded(Vec::new());
        let compiled = template.environment.get_template(NAME).expect("the template");
        compiled.render_captured_to(&document, &mut text).map_err(|error| words(&error))?;
        Ok(String::from_utf8(text.0).expect("text"))
    }

    #[test]
    fn expressions_are_paths_into_the_event() {
        let json = r#"{"operationType":"insert","ns":{"db":"shop","coll":"orders"},
            "fullDocument":{"userId":"64b0","n":7,"price":9.5,"paid":true,"none":null,"tags":["a","b"],"text":"a/b ?ü"}}"#;
        for (source, expected) in [
            ("orders", "orders"),
            ("orders-{{ fullDocument.userId }}", "orders-64b0"),
            ("{{ ns.db }}.{{ns.coll}}", "shop.orders"),
            ("{{ fullDocument.n }}/{{ fullDocument.price }}/{{ fullDocument.paid }}", "7/9.5/true"),
            ("{{ fullDocument.tags[1] }}", "b"),
            ("{{ fullDocument.tags | join('-') }}", "a-b"),
            ("{{ operationType | upper }}", "INSERT"),
            ("{% if fullDocument.nothing %}a{% else %}b{% endif %}", "b"),
            ("{{ fullDocument.nothing | default('none') }}", "none"),
        ] {
            assert_eq!(render(source, Escape::None, json).as_deref(), Ok(expected), "{source}");
        }
        assert_eq!(render("x/{{ fullDocument.text }}", Escape::Url, json).as_deref(), Ok("x/a%2Fb%20%3F%C3%BC"));
        assert_eq!(render("x/{{ fullDocument.text | safe }}", Escape::Url, json).as_deref(), Ok("x/a/b ?ü"));
    }

    #[test]
    fn what_would_print_nothing_useful_is_an_error() {
        let json = r#"{"fullDocument":{"none":null,"tags":["a"],"sub":{"a":1}},"long":"0123456789"}"#;
        for (source, expected) in [
            ("{{ fullDocument.userId }}", "not in the event"),
            ("{{ nothing.userId }}", "not in the event"),
            ("{{ fullDocument.none }}", "gives none"),
            ("{{ fullDocument.tags }}", "gives sequence"),
            ("{{ fullDocument.sub }}", "gives map"),
            ("{% for a in range(100000) %}{% endfor %}", "too many steps"),
            ("{% for a in range(8000) %}{{ long }}{% endfor %}", &format!("more than {RENDERED_BYTES_MAX} bytes")),
        ] {
            let error = render(source, Escape::None, json).expect_err(source);
            assert!(error.contains(expected) && !error.contains('\n'), "{source}: {error}");
        }
    }

    #[test]
    fn what_is_no_template_is_refused_with_its_text() {
        for source in [
            "{{ a",
            "{{ a b }}",
            "{% if a %}",
            "{{ a | nothing }}",
            "{{ fullDocument.city | nothing }}",
            "{% if operationType == 'insert' %}{{ ns.coll | upper | nothing }}{% endif %}",
            "{{ a | e }}",
            "{% macro a() %}{% endmacro %}",
            "{% include 'a' %}",
        ] {
            let error = Template::compile(source, Escape::None).expect_err(source).to_string();
            let start = format!("compile template {source:?}: ");
            assert!(error.starts_with(&start) && error.len() > start.len(), "{error}");
        }
    }

    #[test]
    fn filters_are_the_names_behind_bars_in_tags() {
        for (source, names) in [
            ("a | b", vec![]),
            ("{{ a|b }} | c {{ d | e(1) |f }}", vec!["b", "e", "f"]),
            (r#"{{ "x | y" | z }}{{ 'a\' | b' | c }}"#, vec!["z", "c"]),
            ("{% if a | b %}|{% endif %}ü{{ a |", vec!["b"]),
        ] {
            assert_eq!(filters(source), names, "{source}");
        }
    }

    #[test]
    fn only_text_without_expressions_is_constant() {
        for (source, constant) in
            [("a", true), ("", true), ("{{ a }}", false), ("{# a #}", false), ("{% if a %}{% endif %}", false)]
        {
            let template = Template::compile(source, Escape::None).expect(source);
            assert_eq!(template.constant(), constant.then_some(source), "{source}");
        }
    }
}
