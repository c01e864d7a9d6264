//! The keys of `[outputs.NAME.options]`.

use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;
use tailwater_sdk::{http::Uri, units::Span};

use crate::{
    entry::{Templates, TemplatesError},
    names::CHANNELS_MAX,
};

/// Options of the plugin `pusher`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Id of the app, in quotes.
    pub app_id: String,
    /// Key of the app.
    pub key: String,
    /// Secret of the app. Better not written here: `"${PUSHER_SECRET}"` or `"${file:/run/secrets/pusher}"`.
    pub secret: Secret,
    /// Cluster of the app at Pusher, such as `"eu"`. Either this or `host`.
    pub cluster: Option<String>,
    /// Host of another server that speaks Pusher's HTTP API. Either this or `cluster`.
    pub host: Option<String>,
    /// Port of `host`; default 443, without TLS 80.
    pub port: Option<u16>,
    /// Whether `host` is spoken to over TLS; default true.
    pub tls: Option<bool>,
    /// Channels that each event goes to, 1 to 100: templates over the event, such as `"private-{{ ns.coll }}-{{ documentKey._id }}"`.
    /// Encrypted channels (`private-encrypted-`) cannot be written yet.
    pub channels: Vec<String>,
    /// Name of each event: a template over it.
    #[serde(default = "default_event")]
    pub event: String,
    /// How long one request may take, answer included. Keep it well below the output's `timeout`.
    #[serde(default = "default_deadline")]
    pub deadline: Span,
}

fn default_event() -> String {
    "{{ operationType }}".to_owned()
}

fn default_deadline() -> Span {
    Span::from_secs(15)
}

/// A text that is not shown.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Secret(pub(crate) String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Why options cannot work; each names its key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OptionsError {
    #[error("{0} is empty")]
    Empty(&'static str),
    #[error("{0} may hold letters, digits, `-`, `_` and `.` only")]
    Characters(&'static str),
    #[error("give cluster (an app at Pusher) or host (another server), one of them")]
    Address,
    #[error("{0} goes with host, not with cluster")]
    WithCluster(&'static str),
    #[error(
        "host must be a name or an address alone, such as \"ws.example.org\": its port, tls and path are not part of it"
    )]
    Host,
    #[error("port must not be 0")]
    Port,
    #[error("channels needs 1 to {CHANNELS_MAX} templates, not {0}")]
    Channels(usize),
    #[error("deadline must not be 0")]
    Deadline,
    #[error("{0}")]
    Templates(#[from] TemplatesError),
}

impl Options {
    /// Checks what the schema cannot say, and compiles the templates.
    pub(crate) fn check(&self) -> Result<Templates, OptionsError> {
        // They become parts of the URL as they are.
        for (key, value) in [("app_id", &self.app_id), ("key", &self.key)] {
            check_word(key, value)?;
        }
        if self.secret.0.is_empty() {
            return Err(OptionsError::Empty("secret"));
        }
        self.check_address()?;
        if !(1..=CHANNELS_MAX).contains(&self.channels.len()) {
            return Err(OptionsError::Channels(self.channels.len()));
        }
        if self.deadline.0.is_zero() {
            return Err(OptionsError::Deadline);
        }
        Ok(Templates::compile(self)?)
    }

    fn check_address(&self) -> Result<(), OptionsError> {
        match (&self.cluster, &self.host) {
            (Some(cluster), None) => {
                check_word("cluster", cluster)?;
                let other = [("port", self.port.is_some()), ("tls", self.tls.is_some())];
                other.iter().find(|(_, given)| *given).map_or(Ok(()), |(key, _)| Err(OptionsError::WithCluster(key)))
            }
            (None, Some(host)) => {
                let uri: Uri = self.origin().parse().map_err(|_| OptionsError::Host)?;
                let alone = uri.host() == Some(host) && uri.path() == "/" && uri.query().is_none();
                match self.port {
                    _ if !alone || host.is_empty() => Err(OptionsError::Host),
                    Some(0) => Err(OptionsError::Port),
                    _ => Ok(()),
                }
            }
            _ => Err(OptionsError::Address),
        }
    }

    /// Scheme, host and port of the server. Only of options that were checked is it one.
    pub(crate) fn origin(&self) -> String {
        if let Some(cluster) = &self.cluster {
            return format!("https://api-{cluster}.pusher.com");
        }
        let scheme = if self.tls.unwrap_or(true) { "https" } else { "http" };
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("{scheme}://{}{port}", self.host.as_deref().unwrap_or_default())
    }
}

fn check_word(key: &'static str, value: &str) -> Result<(), OptionsError> {
    let legal = |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
    match value {
        "" => Err(OptionsError::Empty(key)),
        _ if value.chars().all(legal) => Ok(()),
        _ => Err(OptionsError::Characters(key)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Options that work, with these keys set; null takes one away.
    fn options(changes: Value) -> Result<Options, String> {
        let mut options =
            json!({ "app_id": "3", "key": "k", "secret": "s3cret", "cluster": "eu", "channels": ["orders"] });
        for (key, value) in changes.as_object().expect("an object") {
            match value {
                Value::Null => drop(options.as_object_mut().expect("an object").remove(key)),
                value => options[key] = value.clone(),
            }
        }
        serde_json::from_value(options).map_err(|error| error.to_string())
    }

    #[test]
    fn the_address_is_made_of_cluster_or_of_host_port_and_tls() {
        for (changes, expected) in [
            (json!({}), "https://api-eu.pusher.com"),
            (json!({ "cluster": null, "host": "ws.example.org" }), "https://ws.example.org"),
            (json!({ "cluster": null, "host": "ws.example.org", "port": 6001 }), "https://ws.example.org:6001"),
            (json!({ "cluster": null, "host": "127.0.0.1", "port": 6001, "tls": false }), "http://127.0.0.1:6001"),
            (json!({ "cluster": null, "host": "[::1]", "tls": false }), "http://[::1]"),
        ] {
            let options = options(changes).expect("options");
            options.check().map(drop).expect("they work");
            assert_eq!(options.origin(), expected);
        }
    }

    #[test]
    fn the_defaults_are_those_of_the_documents() {
        let options = options(json!({})).expect("options");
        assert_eq!(options.event, "{{ operationType }}");
        assert_eq!(options.deadline, Span::from_secs(15));
    }

    #[test]
    fn the_secret_is_not_shown() {
        let text = format!("{:?}", options(json!({})).expect("options"));
        assert!(text.contains("secret: ***") && !text.contains("s3cret"), "{text}");
    }

    #[test]
    fn options_that_cannot_work_are_refused() {
        let host = |host: &str| json!({ "cluster": null, "host": host });
        for (changes, expected) in [
            (json!({ "chanels": ["a"] }), "unknown field `chanels`"),
            (json!({ "app_id": null }), "missing field `app_id`"),
            (json!({ "app_id": 3 }), "expected a string"),
            (json!({ "app_id": "3/x" }), "app_id may hold letters"),
            (json!({ "key": "" }), "key is empty"),
            (json!({ "key": "a&b" }), "key may hold letters"),
            (json!({ "secret": "" }), "secret is empty"),
            (json!({ "cluster": "eu.evil/" }), "cluster may hold letters"),
            (json!({ "cluster": null }), "give cluster (an app at Pusher) or host (another server), one of them"),
            (json!({ "host": "a" }), "give cluster (an app at Pusher) or host (another server), one of them"),
            (json!({ "port": 443 }), "port goes with host, not with cluster"),
            (json!({ "tls": true }), "tls goes with host, not with cluster"),
            (host(""), "host must be a name"),
            (host("http://a"), "host must be a name"),
            (host("a:1"), "host must be a name"),
            (host("a/b"), "host must be a name"),
            (host("a?b"), "host must be a name"),
            (host("user@a"), "host must be a name"),
            (json!({ "cluster": null, "host": "a", "port": 0 }), "port must not be 0"),
            (json!({ "channels": [] }), "channels needs 1 to 100 templates, not 0"),
            (json!({ "channels": vec!["a"; 101] }), "channels needs 1 to 100 templates, not 101"),
            (json!({ "channels": ["a", "b:c"] }), "channels: the channel name \"b:c\" has the character ':'"),
            (json!({ "channels": ["private-encrypted-a"] }), "an encrypted one, which this version cannot write"),
            (json!({ "channels": ["{{ ns.coll"] }), "{{ ns.coll"),
            (json!({ "event": "pusher:x" }), "event: the event name \"pusher:x\" begins with \"pusher:\""),
            (json!({ "event": "" }), "event: the event name is empty"),
            (json!({ "event": "{{ a | nothing }}" }), "nothing"),
            (json!({ "deadline": "0s" }), "deadline must not be 0"),
            (json!({ "deadline": 15 }), "deadline"),
        ] {
            let checked =
                options(changes.clone()).and_then(|options| options.check().map(drop).map_err(|e| e.to_string()));
            let error = checked.expect_err(expected);
            assert!(expected == "deadline" || error.contains(expected), "{changes}: {error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
    }
}
