//! The signature of a request, by Pusher's HTTP API reference, "Authentication". Pure: the time is an argument, so that every
//! attempt is signed with its own.

use std::time::{SystemTime, UNIX_EPOCH};

use md5::{Digest, Md5};
use ring::hmac;

/// The version of the signing rules.
const AUTH_VERSION: &str = "1.0";

/// Signs requests for one app.
pub(crate) struct Signer {
    /// Public: names the app's credentials.
    key: String,
    /// Made of the secret, once.
    hmac: hmac::Key,
}

/// What a signed request carries behind the `?`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signed {
    /// The whole query. Nothing in it needs escaping: the key was checked with the options.
    pub query: String,
    /// `auth_signature` alone, to strike it out of what a server says.
    pub signature: String,
}

impl Signer {
    pub(crate) fn new(key: &str, secret: &str) -> Self {
        Self { key: key.to_owned(), hmac: hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()) }
    }

    /// Signs a POST of `body`, which must not be empty, to `path`. The server refuses it 600 seconds before and after `now`.
    pub(crate) fn sign(&self, path: &str, body: &[u8], now: SystemTime) -> Signed {
        // A clock before 1970 gives a signature that the server refuses, and its answer says why.
        let timestamp = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let body_md5 = hex::encode(Md5::digest(body));
        // In the order of the names, as the rules want it.
        let parameters =
            format!("auth_key={}&auth_timestamp={timestamp}&auth_version={AUTH_VERSION}&body_md5={body_md5}", self.key);
        let text = format!("POST\n{path}\n{parameters}");
        let signature = hex::encode(hmac::sign(&self.hmac, text.as_bytes()));
        Signed { query: format!("{parameters}&auth_signature={signature}"), signature }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// The worked example of Pusher's reference.
    const BODY: &str = r#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#;
    const TIMESTAMP: u64 = 1_353_088_179;

    fn signed(secret: &str, path: &str, body: &str, timestamp: u64) -> Signed {
        let signer = Signer::new("278d425bdf160c739803", secret);
        signer.sign(path, body.as_bytes(), UNIX_EPOCH + Duration::from_secs(timestamp))
    }

    #[test]
    fn the_example_of_the_reference_is_signed_as_printed_there() {
        let signed = signed("7ad3773142a6692b25b8", "/apps/3/events", BODY, TIMESTAMP);
        assert_eq!(signed.signature, "da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c");
        assert_eq!(
            signed.query,
            "auth_key=278d425bdf160c739803&auth_timestamp=1353088179&auth_version=1.0\
             &body_md5=ec365a775a4cd0599faeb73354201b6f\
             &auth_signature=da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c"
        );
    }

    #[test]
    fn everything_that_is_signed_changes_the_signature() {
        let secret = "7ad3773142a6692b25b8";
        let first = signed(secret, "/apps/3/events", BODY, TIMESTAMP);
        for other in [
            signed("7ad3773142a6692b25b9", "/apps/3/events", BODY, TIMESTAMP),
            signed(secret, "/apps/3/batch_events", BODY, TIMESTAMP),
            signed(secret, "/apps/3/events", &BODY.replace("foo", "fop"), TIMESTAMP),
            signed(secret, "/apps/3/events", BODY, TIMESTAMP + 1),
        ] {
            assert_ne!(other.signature, first.signature, "{}", other.query);
        }
    }

    #[test]
    fn another_attempt_has_another_time_and_the_same_body() {
        let [first, second] = [0, 700].map(|later| signed("s", "/apps/3/events", BODY, TIMESTAMP + later).query);
        let part = |query: &str, name: &str| {
            let mut parts = query.split('&').filter_map(|part| part.split_once('='));
            parts.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned()).expect("the parameter")
        };
        assert_eq!(part(&first, "auth_timestamp"), "1353088179");
        assert_eq!(part(&second, "auth_timestamp"), "1353088879");
        assert_eq!(part(&first, "body_md5"), part(&second, "body_md5"));
        assert_ne!(part(&first, "auth_signature"), part(&second, "auth_signature"));
    }
}
