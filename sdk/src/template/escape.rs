//! The places that a template's text goes to: what is done to a value on its way there, and what may not be in the text at all. The
//! one list of these rules; a plugin adds only what its own destination forbids beyond them.

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// All but the unreserved characters of RFC 3986 §2.3.
const NOT_UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Where the text goes. The literal text of a template is never changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escape {
    /// Anywhere: nothing is changed and nothing refused.
    None,
    /// Into a URL. Values are percent-encoded, so that one can be no more than a part of a path segment or of a query's value: a document
    /// that holds `../admin?` leads nowhere else. `|safe` switches it off for one expression; the one who sends must check the URL.
    Url,
    /// A header's value: a text with a control character is refused. With a line end in it a document could add headers, or a
    /// second request (RFC 9110 §5.5).
    Header,
    /// A channel, topic or event name: a text with CR, LF or NUL is refused. Protocols of lines, such as Server-Sent Events, would end
    /// the name there and read on.
    Name,
}

impl Escape {
    /// Writes a value as the place wants it.
    pub(super) fn write(self, text: &str, out: &mut (impl fmt::Write + ?Sized)) -> fmt::Result {
        match self {
            Self::Url => utf8_percent_encode(text, NOT_UNRESERVED).try_for_each(|part| out.write_str(part)),
            Self::None | Self::Header | Self::Name => out.write_str(text),
        }
    }

    /// Whether a whole text may go there.
    ///
    /// # Errors
    /// What is in it that may not be, without the text.
    pub fn check(self, text: &str) -> Result<(), String> {
        let refused = |c: char| match self {
            Self::None | Self::Url => false,
            Self::Header => c.is_control(),
            Self::Name => matches!(c, '\r' | '\n' | '\0'),
        };
        let place = if self == Self::Header { "a header" } else { "a name" };
        match text.chars().find(|c| refused(*c)) {
            None => Ok(()),
            Some('\r' | '\n') => Err(format!("the text has a line end, which {place} may not have")),
            Some('\0') => Err(format!("the text has a NUL, which {place} may not have")),
            Some(_) => Err(format!("the text has a control character, which {place} may not have")),
        }
    }
}
