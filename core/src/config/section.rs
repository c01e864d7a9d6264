//! One table of the configuration, read key by key, and the place of every error. Knows no key of any module.

use std::ops::{Range, RangeInclusive};
use std::path::Path;
use std::time::{Duration, SystemTime};

use toml::Spanned;
use toml::de::DeTable;

use super::entry::Entry;
use super::error::ConfigError;

/// What every part of one file shares: where it came from and what the outside world says.
pub struct Context<'a> {
    /// Shown in front of every error.
    pub file_name: &'a str,
    /// The whole file, for line numbers.
    pub text: &'a str,
    /// Relative paths in the file start here.
    pub folder: &'a Path,
    /// Looks up `${NAME}`.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// The clock, passed in so that a test decides.
    pub now: SystemTime,
}

impl Context<'_> {
    /// An error at a byte range of the file, or about the file as a whole.
    pub fn error(&self, span: Option<Range<usize>>, message: impl Into<String>) -> ConfigError {
        let place = match span.and_then(|span| self.text.get(..span.start)) {
            Some(before) => {
                let line = before.matches('\n').count() + 1;
                let column = before.chars().rev().take_while(|character| *character != '\n').count() + 1;
                format!("{}:{line}:{column}", self.file_name)
            }
            None => self.file_name.to_owned(),
        };
        ConfigError::Invalid { place, message: message.into() }
    }
}

/// One table. Opening it has already refused every key that is not known.
pub struct Section<'a> {
    context: &'a Context<'a>,
    path: String,
    table: Option<&'a DeTable<'a>>,
    span: Option<Range<usize>>,
}

impl<'a> Section<'a> {
    pub(super) fn new(
        context: &'a Context<'a>,
        path: String,
        table: &'a DeTable<'a>,
        span: Range<usize>,
    ) -> Section<'a> {
        Section { context, path, table: Some(table), span: Some(span) }
    }

    /// The file itself.
    ///
    /// # Errors
    /// An unknown key.
    pub fn top(context: &'a Context<'a>, table: &'a DeTable<'a>, keys: &[&str]) -> Result<Section<'a>, ConfigError> {
        let section = Section { context, path: String::new(), table: Some(table), span: None };
        section.refuse_unknown(keys)?;
        Ok(section)
    }

    /// The table under `key`; an absent one reads as empty, so that defaults stand in one place only.
    ///
    /// # Errors
    /// Not a table, or a key in it is not one of `keys`.
    pub fn section(&self, key: &str, keys: &[&str]) -> Result<Section<'a>, ConfigError> {
        match self.get(key) {
            Some(entry) => entry.section(keys),
            None => Ok(Section { context: self.context, path: self.path_of(key), table: None, span: None }),
        }
    }

    /// The value under `key`, if there is one.
    pub fn get(&self, key: &str) -> Option<Entry<'a>> {
        let value = self.table?.get(key)?;
        Some(Entry::new(self.context, self.path_of(key), value))
    }

    /// The value under `key`, which has no default.
    ///
    /// # Errors
    /// It is missing; `example` is shown as what to write.
    pub fn require(&self, key: &str, example: &str) -> Result<Entry<'a>, ConfigError> {
        self.get(key).ok_or_else(|| {
            let path = self.path_of(key);
            let table = if self.span.is_none() { format!(" under [{}]", self.path) } else { String::new() };
            self.context.error(self.span.clone(), format!("{path}: missing, add {key} = {example}{table}"))
        })
    }

    /// Every key with its value, in the order of the file.
    pub fn entries(&self) -> Vec<(String, Entry<'a>)> {
        let Some(table) = self.table else { return Vec::new() };
        let entry = |(key, value): (&Spanned<_>, &'a _)| {
            let key: &std::borrow::Cow<'_, str> = key.get_ref();
            (key.to_string(), Entry::new(self.context, self.path_of(key), value))
        };
        table.iter().map(entry).collect()
    }

    /// An error about this table as a whole.
    pub fn error(&self, message: impl AsRef<str>) -> ConfigError {
        let prefix = if self.path.is_empty() { String::new() } else { format!("{}: ", self.path) };
        self.context.error(self.span.clone(), format!("{prefix}{}", message.as_ref()))
    }

    /// The clock of this load.
    pub fn now(&self) -> SystemTime {
        self.context.now
    }

    /// `key` as a boolean, or `default`.
    ///
    /// # Errors
    /// Another type.
    pub fn boolean(&self, key: &str, default: bool) -> Result<bool, ConfigError> {
        self.get(key).map_or(Ok(default), |entry| entry.boolean())
    }

    /// `key` as a whole number within `range`, or `default`.
    ///
    /// # Errors
    /// Another type, or out of range.
    pub fn integer(&self, key: &str, range: RangeInclusive<u64>, default: u64) -> Result<u64, ConfigError> {
        self.get(key).map_or(Ok(default), |entry| entry.integer(range))
    }

    /// `key` as a duration within `range`, or `default`.
    ///
    /// # Errors
    /// Not a duration, or out of range.
    pub fn duration(
        &self,
        key: &str,
        range: RangeInclusive<Duration>,
        default: Duration,
    ) -> Result<Duration, ConfigError> {
        self.get(key).map_or(Ok(default), |entry| entry.duration(range))
    }

    /// `key` as a duration within `range`, or `None` where it says `"off"`, or `default`.
    ///
    /// # Errors
    /// Neither, or out of range.
    pub fn duration_or_off(
        &self,
        key: &str,
        range: RangeInclusive<Duration>,
        default: Option<Duration>,
    ) -> Result<Option<Duration>, ConfigError> {
        self.get(key).map_or(Ok(default), |entry| entry.duration_or_off(range))
    }

    /// `key` as a number of bytes within `range`, or `default`.
    ///
    /// # Errors
    /// Not a byte size, or out of range.
    pub fn bytes(&self, key: &str, range: RangeInclusive<u64>, default: u64) -> Result<u64, ConfigError> {
        self.get(key).map_or(Ok(default), |entry| entry.bytes(range))
    }

    /// `key` as one of `choices`, or `default`.
    ///
    /// # Errors
    /// Another word.
    pub fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)], default: T) -> Result<T, ConfigError> {
        self.get(key).map_or(Ok(default), |entry| entry.choice(choices))
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    pub(super) fn refuse_unknown(&self, keys: &[&str]) -> Result<(), ConfigError> {
        let unknown =
            self.table.into_iter().flat_map(|table| table.keys()).find(|key| !keys.contains(&&**key.get_ref()));
        let Some(unknown) = unknown else { return Ok(()) };
        let name: &str = unknown.get_ref();
        let hint = match nearest(name, keys) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("known here: {}", keys.join(", ")),
        };
        Err(self.context.error(Some(unknown.span()), format!("unknown key \"{}\", {hint}", self.path_of(name))))
    }
}

/// The known word an unknown one was most likely meant to be.
pub fn nearest<'w>(word: &str, known: &[&'w str]) -> Option<&'w str> {
    let scored = known.iter().map(|near| (strsim::jaro_winkler(word, near), *near));
    scored.filter(|(score, _)| *score > 0.8).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, near)| near)
}
