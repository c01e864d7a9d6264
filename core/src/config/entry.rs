//! One value of the configuration: types, ranges, references. Knows no key of any module.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::error::ConfigError;
use super::expand::expand;
use super::section::{Context, Section};
use super::units::{format_bytes, format_duration, parse_bytes, parse_duration};

/// One value with its full dotted key and its place.
#[derive(Clone)]
pub struct Entry<'a> {
    context: &'a Context<'a>,
    path: String,
    value: &'a Spanned<DeValue<'a>>,
}

impl<'a> Entry<'a> {
    pub(super) fn new(context: &'a Context<'a>, path: String, value: &'a Spanned<DeValue<'a>>) -> Entry<'a> {
        Entry { context, path, value }
    }

    /// The raw value, for free-form tables.
    pub fn value(&self) -> &'a DeValue<'a> {
        self.value.get_ref()
    }

    /// An error about this value: `message` follows its place and full key.
    pub fn error(&self, message: impl AsRef<str>) -> ConfigError {
        self.context.error(Some(self.value.span()), format!("{}: {}", self.path, message.as_ref()))
    }

    /// The same, for a value inside this one.
    pub fn child(&self, name: &str, value: &'a Spanned<DeValue<'a>>) -> Entry<'a> {
        let dot = if name.starts_with('[') { "" } else { "." };
        Entry { context: self.context, path: format!("{}{dot}{name}", self.path), value }
    }

    /// The members of an array.
    ///
    /// # Errors
    /// Not an array; `example` is shown as what to write.
    pub fn array(&self, example: &str) -> Result<Vec<Entry<'a>>, ConfigError> {
        let DeValue::Array(values) = self.value() else {
            return Err(self.wrong_type(&format!("an array such as {example}")));
        };
        Ok(values.iter().enumerate().map(|(index, value)| self.child(&format!("[{index}]"), value)).collect())
    }

    /// A table whose keys are among `keys`.
    ///
    /// # Errors
    /// Not a table, or an unknown key.
    pub fn section(&self, keys: &[&str]) -> Result<Section<'a>, ConfigError> {
        let section = self.free_section()?;
        section.refuse_unknown(keys)?;
        Ok(section)
    }

    /// A table with keys of its own, such as the outputs' names.
    ///
    /// # Errors
    /// Not a table.
    pub fn free_section(&self) -> Result<Section<'a>, ConfigError> {
        let DeValue::Table(table) = self.value() else { return Err(self.wrong_type("a table")) };
        Ok(Section::new(self.context, self.path.clone(), table, self.value.span()))
    }

    /// A string with its references replaced.
    ///
    /// # Errors
    /// Not a string, or a reference to nothing.
    pub fn string(&self) -> Result<String, ConfigError> {
        let DeValue::String(text) = self.value() else { return Err(self.wrong_type("a string")) };
        expand(text, self.context.env, self.context.folder).map_err(|message| self.error(message))
    }

    /// A path; a relative one starts at the configuration's own folder, wherever the daemon was started.
    ///
    /// # Errors
    /// Not a string, or empty.
    pub fn path(&self) -> Result<PathBuf, ConfigError> {
        let text = self.string()?;
        if text.is_empty() {
            return Err(self.error("empty, write a path"));
        }
        Ok(self.context.folder.join(text))
    }

    /// A name that is safe in files, metrics and logs.
    ///
    /// # Errors
    /// Anything but 1 to 64 of `a-z 0-9 _ -`.
    pub fn name(&self) -> Result<String, ConfigError> {
        let text = self.string()?;
        check_name(&text).map_err(|message| self.error(message))?;
        Ok(text)
    }

    /// `true` or `false`.
    ///
    /// # Errors
    /// Another type.
    pub fn boolean(&self) -> Result<bool, ConfigError> {
        let DeValue::Boolean(value) = self.value() else { return Err(self.wrong_type("true or false")) };
        Ok(*value)
    }

    /// A whole number within `range`.
    ///
    /// # Errors
    /// Another type, or out of range.
    pub fn integer(&self, range: RangeInclusive<u64>) -> Result<u64, ConfigError> {
        let DeValue::Integer(number) = self.value() else { return Err(self.wrong_type("a whole number")) };
        let value = i128::from_str_radix(&number.as_str().replace('_', ""), number.radix()).ok();
        match value.and_then(|value| u64::try_from(value).ok()).filter(|value| range.contains(value)) {
            Some(value) => Ok(value),
            None => Err(self.error(format!("{number} is out of range, write {} to {}", range.start(), range.end()))),
        }
    }

    /// A duration within `range`.
    ///
    /// # Errors
    /// Not a duration, or out of range.
    pub fn duration(&self, range: RangeInclusive<Duration>) -> Result<Duration, ConfigError> {
        let text = self.text_of_duration()?;
        self.parse_duration(&text, range, "")
    }

    /// A duration within `range`, or `None` for `"off"`.
    ///
    /// # Errors
    /// Neither, or out of range.
    pub fn duration_or_off(&self, range: RangeInclusive<Duration>) -> Result<Option<Duration>, ConfigError> {
        match self.text_of_duration()?.as_str() {
            "off" => Ok(None),
            text => self.parse_duration(text, range, ", or \"off\"").map(Some),
        }
    }

    fn text_of_duration(&self) -> Result<String, ConfigError> {
        let DeValue::String(_) = self.value() else { return Err(self.wrong_type("a duration such as \"500ms\"")) };
        self.string()
    }

    fn parse_duration(&self, text: &str, range: RangeInclusive<Duration>, or: &str) -> Result<Duration, ConfigError> {
        let hint = format!("write a whole number with ms, s, m, h or d, such as \"500ms\"{or}");
        let value = parse_duration(text).ok_or_else(|| self.error(format!("\"{text}\" is not a duration, {hint}")))?;
        if range.contains(&value) {
            return Ok(value);
        }
        let (low, high) = (format_duration(*range.start()), format_duration(*range.end()));
        Err(self.error(format!("\"{text}\" is out of range, write {low} to {high}{or}")))
    }

    /// A number of bytes within `range`.
    ///
    /// # Errors
    /// Not a byte size, or out of range.
    pub fn bytes(&self, range: RangeInclusive<u64>) -> Result<u64, ConfigError> {
        let DeValue::String(_) = self.value() else { return Err(self.wrong_type("a byte size such as \"16MiB\"")) };
        let text = self.string()?;
        let hint = "write a whole number with B, KiB, MiB, GiB, KB, MB or GB, such as \"16MiB\"";
        let value = parse_bytes(&text).ok_or_else(|| self.error(format!("\"{text}\" is not a byte size, {hint}")))?;
        if range.contains(&value) {
            return Ok(value);
        }
        let (low, high) = (format_bytes(*range.start()), format_bytes(*range.end()));
        Err(self.error(format!("\"{text}\" is out of range, write {low} to {high}")))
    }

    /// One of a few words.
    ///
    /// # Errors
    /// Another word; names the nearest, or all.
    pub fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Result<T, ConfigError> {
        let text = self.string()?;
        if let Some((_, value)) = choices.iter().find(|(word, _)| *word == text) {
            return Ok(*value);
        }
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        Err(self.error(format!("\"{text}\" is not known, write {}", one_of(&words))))
    }

    /// The type is wrong: says which one is expected and which one is there.
    pub fn wrong_type(&self, expected: &str) -> ConfigError {
        let found = match self.value() {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a float",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "an array",
            DeValue::Table(_) => "a table",
        };
        self.error(format!("expected {expected}, found {found}"))
    }
}

/// Whether `text` may name an output, a plugin or a deployment.
///
/// # Errors
/// What is wrong with it.
pub fn check_name(text: &str) -> Result<(), String> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-';
    if (1..=64).contains(&text.len()) && text.bytes().all(allowed) {
        return Ok(());
    }
    Err(format!("\"{text}\" is not a name, use 1 to 64 of a-z, 0-9, _ and -"))
}

/// `"a", "b" or "c"`.
fn one_of(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}
