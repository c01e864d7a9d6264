//! Regular expressions of queries: their options, what they match, and how much one of them may cost.

mod pcre;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tailwater_raw::{Value, kind};

use pcre::{Code, Found};

/// Bytes of a pattern, as in the server.
const PATTERN_MAX: usize = 32_764;

/// A compiled pattern. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Pattern(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    pattern: Box<[u8]>,
    options: Box<[u8]>,
    code: Code,
    /// How often a text was given up because the pattern would have cost too much; one count for the whole query.
    given_up: Arc<AtomicU64>,
}

impl Pattern {
    /// Compiles a pattern with the options `i`, `m`, `s`, `x` and `u`, which changes nothing: all texts are UTF-8.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence.
    pub fn new(pattern: &str, options: &str, given_up: Arc<AtomicU64>) -> Result<Pattern, String> {
        if pattern.contains('\0') {
            return Err("contains a zero byte".into());
        }
        if pattern.len() > PATTERN_MAX {
            return Err(format!("has {} bytes, write at most {PATTERN_MAX}", pattern.len()));
        }
        let mut flags = 0;
        for option in options.chars() {
            flags |= match option {
                'i' => pcre::CASELESS,
                'm' => pcre::MULTILINE,
                's' => pcre::DOT_MATCHES_ALL,
                'x' => pcre::EXTENDED,
                'u' => 0,
                _ => return Err(format!("has the unknown option {option:?}; there are i m s x u")),
            };
        }
        let code = Code::new(pattern, flags)?;
        let (pattern, options) = (pattern.as_bytes().into(), options.as_bytes().into());
        Ok(Pattern(Arc::new(Inner { pattern, options, code, given_up })))
    }

    /// Whether it matches a text, or is the regular expression that is stored.
    pub fn matches(&self, found: Value<'_>) -> bool {
        match found.kind() {
            kind::STRING | kind::SYMBOL => self.matches_text(found.text()),
            kind::REGEX => found.regex() == (&*self.0.pattern, &*self.0.options),
            _ => false,
        }
    }

    /// What is not UTF-8 is not matched, as on the server.
    fn matches_text(&self, text: &[u8]) -> bool {
        let Ok(text) = std::str::from_utf8(text) else { return false };
        match self.0.code.find(text) {
            Found::Yes => true,
            Found::No => false,
            Found::GivenUp => {
                self.0.given_up.fetch_add(1, Ordering::Relaxed);
                false
            }
        }
    }
}
