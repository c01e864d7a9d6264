//! A MongoDB connection string that does not show its secrets in logs.

use std::fmt;

/// The connection string of the source. `Debug` and `Display` mask the password and secret options; only
/// [`Uri::expose`] gives the real text, for the driver.
#[derive(Clone, PartialEq, Eq)]
pub struct Uri(String);

impl Uri {
    /// Wraps a connection string.
    pub fn new(text: String) -> Uri {
        Uri(text)
    }

    /// The text itself, password included. For the driver only, never for a log or an error.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = self.0.split_once("://").unwrap_or(("", &self.0));
        // The last `@` before the query: a password that was not percent-encoded must be masked as well.
        let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
        let hosts = match authority.rsplit_once('@') {
            Some((user, hosts)) => {
                format!("{}:***@{hosts}", user.split(':').next().unwrap_or_default())
            }
            None => authority.to_owned(),
        };
        write!(f, "{scheme}://{hosts}")?;
        for (index, option) in query.split('&').filter(|option| !option.is_empty()).enumerate() {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            let lower = name.to_ascii_lowercase();
            let secret = lower.contains("password") || lower == "authmechanismproperties" || lower == "proxyusername";
            let shown = if secret { "***" } else { value };
            write!(f, "{}{name}={shown}", if index == 0 { '?' } else { '&' })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked() {
        for (uri, shown) in [
            ("mongodb://127.0.0.1:27017/?replicaSet=rs0", "mongodb://127.0.0.1:27017/?replicaSet=rs0"),
            ("mongodb://u:p%40ss@a,b/db?tls=true", "mongodb://u:***@a,b/db?tls=true"),
            ("mongodb+srv://u:p@ss@host", "mongodb+srv://u:***@host"),
            ("mongodb://u@host", "mongodb://u:***@host"),
            ("mongodb://h/?tlsCertificateKeyFilePassword=x&w=1", "mongodb://h/?tlsCertificateKeyFilePassword=***&w=1"),
            ("mongodb://h/?authMechanismProperties=AWS_SESSION_TOKEN:x", "mongodb://h/?authMechanismProperties=***"),
        ] {
            let uri = Uri::new(uri.to_owned());
            assert_eq!(uri.to_string(), shown);
            assert_eq!(format!("{uri:?}"), format!("\"{shown}\""));
        }
    }
}
