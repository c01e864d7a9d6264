//! Where an event goes: the `url` template, checked once and then for each event. Pure.

use std::fmt;

use tailwater_sdk::{
    Error, Verdict,
    http::Uri,
    template::{Escape, Scope, Template},
};

/// The URL of each event.
pub(crate) struct Target {
    template: Template,
    /// Where the template has no expressions.
    constant: Option<Uri>,
}

/// Without the URL, which may hold secrets.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").finish_non_exhaustive()
    }
}

impl Target {
    /// Compiles the template and checks as much of the URL as is the same for each event. An error never shows the URL, which may
    /// hold credentials.
    pub(crate) fn compile(source: &str) -> Result<Self, Error> {
        let literal = ["{{", "{%", "{#"].iter().filter_map(|mark| source.find(mark)).min();
        let literal = &source[..literal.unwrap_or(source.len())];
        let text = without_tags(source);
        if text.contains('#') {
            return Err("url has a fragment (#…), which is never sent: leave it out, or write %23".into());
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("url has a space, a control character or one outside ASCII: write it percent-encoded".into());
        }
        let authority = literal.split_once("://").map(|(_, rest)| rest).ok_or(NOT_ABSOLUTE)?;
        if literal.len() < source.len() && !authority.contains(['/', '?']) {
            return Err("url: only path and query may have expressions; write the host out, and a / behind it".into());
        }
        let uri = check(literal).map_err(|problem| format!("url {problem}"))?;
        let template = Template::compile(source, Escape::Url).map_err(|error| without(source, &error.to_string()))?;
        let constant = template.constant().map(|_| uri);
        Ok(Self { template, constant })
    }

    /// The URL of one event.
    pub(crate) fn of(&self, scope: &Scope<'_>) -> Result<Uri, Verdict> {
        if let Some(uri) = &self.constant {
            return Ok(uri.clone());
        }
        let text = self.template.render(scope).map_err(|error| match error.into() {
            Verdict::Reject { reason } => Verdict::reject(without(self.template.source(), &reason)),
            other => other,
        })?;
        let refuse = |problem: &str| Verdict::reject(format!("url, for this event, {problem}"));
        let uri = check(&text).map_err(refuse)?;
        // Servers and what stands before them resolve these, each in its own way: a value must not choose another path.
        if uri.path().split('/').any(|segment| matches!(segment, "." | "..")) {
            return Err(refuse("has . or .. as a part of its path"));
        }
        Ok(uri)
    }
}

/// The literal text of a template, also behind its expressions.
fn without_tags(source: &str) -> String {
    let (mut text, mut rest) = (String::new(), source);
    while let Some((at, close)) = [("{{", "}}"), ("{%", "%}"), ("{#", "#}")]
        .iter()
        .filter_map(|(open, close)| Some((rest.find(open)?, close)))
        .min()
    {
        text.push_str(&rest[..at]);
        rest = rest[at + 2..].split_once(close).map_or("", |(_, behind)| behind);
    }
    text + rest
}

/// What is said of a template, without its source.
fn without(source: &str, text: &str) -> String {
    text.replace(&format!("template {source:?}"), "url").replace(&format!("{source:?}"), "url")
}

const NOT_ABSOLUTE: &str = "url must be absolute: https://host/path";

fn check(text: &str) -> Result<Uri, &'static str> {
    if text.contains('#') {
        return Err("has a fragment (#…), which is never sent");
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("has a space, a control character or one outside ASCII: write it percent-encoded");
    }
    let uri: Uri = text.parse().map_err(|_| "is no URL")?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err("must begin with https:// or http://");
    }
    let authority = uri.authority().ok_or("has no host")?;
    if authority.as_str().contains('@') {
        return Err("has a user name in it: send it as headers = { Authorization = \"Basic …\" }");
    }
    if authority.host().is_empty() {
        return Err("has no host");
    }
    // `port()` takes one that is no number for none at all.
    let behind_host = &authority.as_str()[authority.host().len()..];
    if !behind_host.is_empty() && authority.port_u16().is_none_or(|port| port == 0) {
        return Err("has a port that is none");
    }
    Ok(uri)
}

/// For messages: scheme and host. Path and query may hold secrets; of many chat services' webhooks the path is the only one.
pub(crate) fn shown(uri: &Uri) -> String {
    let (scheme, authority) = (uri.scheme_str().unwrap_or_default(), uri.authority().map_or("", |host| host.as_str()));
    // Never a user name: one got here only from a `location`.
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}{}", if uri.path().len() > 1 { "/…" } else { "/" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_can_never_work_is_refused() {
        for (source, expected) in [
            ("", "must be absolute"),
            ("/hook", "must be absolute"),
            ("example.com/hook", "must be absolute"),
            ("ftp://example.com/", "must begin with https:// or http://"),
            ("https://", "is no URL"),
            ("https:///hook", "is no URL"),
            ("https://us er@example.com/", "has a space"),
            ("https://user:secret@example.com/", "Authorization"),
            ("https://example.com:0/", "a port that is none"),
            ("https://example.com:/", "a port that is none"),
            ("https://example.com:99999/", "a port that is none"),
            ("https://example.com/a b", "has a space"),
            ("https://example.com/ä", "outside ASCII"),
            ("https://example.com/a\nb", "a control character"),
            ("https://example.com/#a", "has a fragment"),
            ("https://example.com/{{ a }}#b", "has a fragment"),
            ("https://example.com/{{ a }} b", "has a space"),
            ("https://example.com/{% if a %}ä{% endif %}", "outside ASCII"),
            ("https://{{ fullDocument.host }}/", "write the host out"),
            ("https://example.com{{ fullDocument.path }}", "write the host out"),
            ("https://example.com:{{ fullDocument.port }}/", "write the host out"),
            ("{{ fullDocument.url }}", "must be absolute"),
            ("{% if a %}https://example.com/{% endif %}", "must be absolute"),
            ("https://user:secret@example.com/{{ a }}", "Authorization"),
            ("https://example.com/?token=secret&{{ a", "compile url: "),
            ("https://example.com/?token=secret&{{ a | nothing }}", "compile url: "),
        ] {
            let error = Target::compile(source).expect_err(source).to_string();
            assert!(error.contains(expected), "{source:?}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_url_that_can_work_is_taken() {
        for source in [
            "https://example.com",
            "http://localhost:8080/hook?token=a%20b",
            "https://[::1]:8443/hook",
            "https://example.com/{{ fullDocument._id }}/x?a={{ ns.coll }}",
            "https://example.com?a={{ ns.coll }}",
            "https://example.com/{# why #}orders",
        ] {
            Target::compile(source).unwrap_or_else(|error| panic!("{source}: {error}"));
        }
    }

    #[test]
    fn a_message_shows_neither_path_nor_query_nor_user() {
        for (uri, expected) in [
            ("https://example.com/a?token=secret", "https://example.com/…"),
            ("https://user:secret@example.com:8443/a", "https://example.com:8443/…"),
            ("https://example.com", "https://example.com/"),
        ] {
            assert_eq!(shown(&uri.parse().expect(uri)), expected);
        }
    }
}
