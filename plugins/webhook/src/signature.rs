//! Standard Webhooks 1.0.0, symmetric signatures (`v1`): HMAC-SHA256 over `{id}.{timestamp}.{body}`. Pure.

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::hmac;
use tailwater_sdk::Error;

use crate::config::Masked;

/// How a secret is written: this, then base64.
const PREFIX: &str = "whsec_";
/// How an asymmetric secret is written, which this plugin has no use for.
const ASYMMETRIC_PREFIX: &str = "whsk_";
/// Most secrets at once: a rotation needs two.
const SECRETS_MAX: usize = 8;

/// The keys that sign each request. Its `Debug` shows none of them: ring's own does not.
#[derive(Debug, Clone)]
pub(crate) struct Keys(Vec<hmac::Key>);

impl Keys {
    /// Reads secrets as they are written in the options. An error never shows one.
    pub(crate) fn parse(secrets: &[Masked]) -> Result<Self, Error> {
        if secrets.len() > SECRETS_MAX {
            return Err(format!("secrets has {} entries: at most {SECRETS_MAX}", secrets.len()).into());
        }
        let key = |(index, Masked(secret)): (usize, &Masked)| {
            parse(secret).map_err(|problem| format!("secrets[{index}] {problem}").into())
        };
        Ok(Self(secrets.iter().enumerate().map(key).collect::<Result<_, Error>>()?))
    }

    /// The value of `webhook-signature`, one signature by each key; `None` without keys.
    pub(crate) fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> Option<String> {
        let head = format!("{id}.{timestamp}.");
        let signature = |key| {
            let mut context = hmac::Context::with_key(key);
            context.update(head.as_bytes());
            context.update(body);
            format!("v1,{}", STANDARD.encode(context.sign()))
        };
        (!self.0.is_empty()).then(|| self.0.iter().map(signature).collect::<Vec<_>>().join(" "))
    }
}

fn parse(secret: &str) -> Result<hmac::Key, &'static str> {
    if secret.starts_with(ASYMMETRIC_PREFIX) {
        return Err("is a key for asymmetric signatures (whsk_): only symmetric ones (whsec_) are made");
    }
    let encoded = secret.strip_prefix(PREFIX).ok_or("must begin with whsec_")?;
    let bytes = STANDARD.decode(encoded).map_err(|_| "must be whsec_ and standard base64 with its padding")?;
    if !(24..=64).contains(&bytes.len()) {
        return Err("must hold 24 to 64 bytes: make one with `echo whsec_$(openssl rand -base64 32)`");
    }
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vector of the specification's own Rust library (`libraries/rust/src/lib.rs`, `test_sign`).
    const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    const ID: &str = "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk";
    const TIMESTAMP: u64 = 1_649_367_553;
    const BODY: &[u8] = br#"{"email":"test@example.com","username":"test_user"}"#;
    const SIGNATURE: &str = "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=";

    fn keys(secrets: &[&str]) -> Keys {
        let secrets: Vec<Masked> = secrets.iter().map(|secret| Masked((*secret).to_owned())).collect();
        Keys::parse(&secrets).expect("secrets")
    }

    #[test]
    fn the_official_vector() {
        assert_eq!(keys(&[SECRET]).sign(ID, TIMESTAMP, BODY).as_deref(), Some(SIGNATURE));
        assert_eq!(keys(&[]).sign(ID, TIMESTAMP, BODY), None);
    }

    #[test]
    fn while_secrets_change_there_is_a_signature_by_each() {
        let other = format!("whsec_{}", STANDARD.encode([7; 64]));
        let both = keys(&[&other, SECRET]).sign(ID, TIMESTAMP, BODY).expect("signatures");
        let alone = keys(&[&other]).sign(ID, TIMESTAMP, BODY).expect("a signature");
        assert_eq!(both, format!("{alone} {SIGNATURE}"));
        assert_ne!(alone, SIGNATURE);
    }

    #[test]
    fn id_timestamp_and_body_are_all_signed() {
        let keys = keys(&[SECRET]);
        for (id, timestamp, body) in [("msg_2", TIMESTAMP, BODY), (ID, TIMESTAMP + 1, BODY), (ID, TIMESTAMP, b"{}")] {
            assert_ne!(keys.sign(id, timestamp, body).as_deref(), Some(SIGNATURE));
        }
    }

    #[test]
    fn a_bad_secret_is_named_by_its_place_and_never_shown() {
        let bytes = |count: usize| format!("whsec_{}", STANDARD.encode(vec![1; count]));
        for (secret, expected) in [
            ("C2FVsBQIhrscChlQIMV+b5sSYspob7oD".to_owned(), "must begin with whsec_"),
            ("whsec_C2FVsBQIhrscChlQIMV-b5sSYspob7oD".to_owned(), "standard base64"),
            (bytes(32).trim_end_matches('=').to_owned(), "standard base64 with its padding"),
            (String::new(), "must begin with whsec_"),
            ("whsk_C2FVsBQIhrscChlQIMV+b5sSYspob7oD".to_owned(), "asymmetric"),
            (bytes(23), "24 to 64 bytes"),
            (bytes(65), "24 to 64 bytes"),
        ] {
            let secrets = [Masked(SECRET.to_owned()), Masked(secret.clone())];
            let error = Keys::parse(&secrets).expect_err(expected).to_string();
            assert!(error.starts_with("secrets[1] ") && error.contains(expected), "{error}");
            assert!(secret.is_empty() || !error.contains(secret.trim_start_matches("whsec_")), "{error}");
            assert!(!format!("{secrets:?}").contains("C2FV"), "{secrets:?}");
        }
        for count in [24, 64] {
            assert!(Keys::parse(&[Masked(bytes(count))]).is_ok());
        }
        assert!(!format!("{:?}", keys(&[SECRET])).contains("C2FV"));
    }
}
