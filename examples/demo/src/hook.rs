//! The receiver of the webhook: believes a request only when its signature is right (Standard Webhooks, scheme `v1`).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use axum::http::HeaderMap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rand::Rng;
use ring::hmac;

/// A request that is older was perhaps recorded by somebody and sent again.
const TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// What sender and receiver know, and nobody else. New for each run.
pub struct Secret {
    bytes: [u8; 32],
}

impl Secret {
    /// Another one each time.
    pub fn random() -> Secret {
        let mut bytes = [0; 32];
        rand::rng().fill_bytes(&mut bytes);
        Secret { bytes }
    }

    /// As the configuration of the sender has it.
    pub fn as_text(&self) -> String {
        format!("whsec_{}", STANDARD.encode(self.bytes))
    }

    /// # Errors
    /// When the sender does not know the secret, the body was changed, or the request is old.
    pub fn verify(&self, headers: &HeaderMap, body: &[u8], now: SystemTime) -> Result<()> {
        let header = |name: &str| {
            let value = headers.get(name).and_then(|value| value.to_str().ok());
            value.with_context(|| format!("no header {name}"))
        };
        let (id, timestamp) = (header("webhook-id")?, header("webhook-timestamp")?);
        let sent = UNIX_EPOCH + Duration::from_secs(timestamp.parse().context("webhook-timestamp is not a number")?);
        let age = now.duration_since(sent).unwrap_or_else(|early| early.duration());
        ensure!(age <= TOLERANCE, "webhook-timestamp is {} s away", age.as_secs());
        let signed = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat();
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.bytes);
        // There can be several while secrets are changed; one that is right is enough.
        let right = header("webhook-signature")?
            .split(' ')
            .filter_map(|signature| signature.strip_prefix("v1,"))
            .any(|signature| STANDARD.decode(signature).is_ok_and(|tag| hmac::verify(&key, &signed, &tag).is_ok()));
        ensure!(right, "webhook-signature is not right");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: u64 = 1_674_087_231;

    fn headers(signature: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("webhook-id", "msg_1".parse().expect("a value"));
        headers.insert("webhook-timestamp", SENT.into());
        headers.insert("webhook-signature", signature.parse().expect("a value"));
        headers
    }

    #[test]
    fn only_what_was_signed_with_the_secret_is_believed() {
        // Made with Python: base64(hmac.new(bytes(32), b"msg_1.1674087231.{}", "sha256").digest()).
        let right = "v1,uG34EZimU3gLfAAHUU/ZZD18ztMwLodeY5h1Ti5ZO9M=";
        let secret = Secret { bytes: [0; 32] };
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        for (signature, body, now, expected) in [
            (right, "{}", SENT, true),
            (&format!("v1,AAAA {right}"), "{}", SENT + 60, true),
            (right, "{ }", SENT, false),
            (right, "{}", SENT + 3600, false),
            (right, "{}", SENT - 3600, false),
            ("v1,AAAA", "{}", SENT, false),
            ("", "{}", SENT, false),
        ] {
            let verified = secret.verify(&headers(signature), body.as_bytes(), at(now));
            assert_eq!(verified.is_ok(), expected, "{signature} {body} {now}: {verified:?}");
        }
        assert!(Secret::random().verify(&headers(right), b"{}", at(SENT)).is_err(), "another secret");
    }
}
