//! `[admin]`: where health and metrics are served.

use std::net::SocketAddr;

use crate::config::error::ConfigError;
use crate::config::section::Section;

/// The keys of `[admin]`.
pub const KEYS: &[&str] = &["listen"];

/// The HTTP side of the daemon, for operators.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where `/healthz`, `/readyz` and `/metrics` are served; `None` for `"off"`. Port 0 takes a free one. Default
    /// 127.0.0.1:8081.
    pub listen: Option<SocketAddr>,
}

impl Config {
    /// Reads the table.
    ///
    /// # Errors
    /// A wrong value.
    pub fn read(section: &Section<'_>) -> Result<Config, ConfigError> {
        let Some(entry) = section.get("listen") else {
            return Ok(Config { listen: Some(SocketAddr::from(([127, 0, 0, 1], 8081))) });
        };
        let text = entry.string()?;
        if text == "off" {
            return Ok(Config { listen: None });
        }
        let hint = "write IP:PORT, such as \"127.0.0.1:8081\", or \"off\"";
        let listen = text.parse().map_err(|_| entry.error(format!("\"{text}\" is not an address, {hint}")))?;
        Ok(Config { listen: Some(listen) })
    }
}
