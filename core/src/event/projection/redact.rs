//! How a value is made unreadable: a fixed text, or a keyed hash of it.
//!
//! The hash is the HMAC-SHA-256, under `hash_key`, of one byte that is the value's BSON type and then the value's bytes as they stand
//! in BSON; written as 64 hex digits. Equal values of one type have equal hashes, in every event, field and output with this key;
//! a number that is an int in one document and a long in another has two.

use ring::hmac;
use tailwater_raw::Value;

use super::tree::Redact;

/// What redacted values are replaced with.
#[derive(Clone)]
pub(super) struct Redaction {
    pub mask: Box<str>,
    /// There is one wherever a path is hashed. Its `Debug` shows the algorithm only.
    pub key: Option<hmac::Key>,
}

impl Redaction {
    /// Writes what stands in the value's place, as a BSON string.
    pub fn write(&self, how: Redact, value: Value<'_>, out: &mut Vec<u8>) {
        match (how, &self.key) {
            (Redact::Hash, Some(key)) => {
                let mut context = hmac::Context::with_key(key);
                context.update(&[value.kind()]);
                context.update(value.bytes());
                let mut text = [0; 64];
                write_hex(context.sign().as_ref(), &mut text);
                string(&text, out);
            }
            // Without a key nothing is hashed: the configuration refuses that.
            (Redact::Mask, _) | (Redact::Hash, None) => self.write_mask(out),
        }
    }

    /// Writes the fixed text.
    pub fn write_mask(&self, out: &mut Vec<u8>) {
        string(self.mask.as_bytes(), out);
    }
}

/// Lower-case hex digits of `bytes`, as many as `text` has room for.
pub(super) fn write_hex(bytes: &[u8], text: &mut [u8]) {
    for (byte, pair) in bytes.iter().zip(text.chunks_exact_mut(2)) {
        pair[0] = b"0123456789abcdef"[usize::from(byte >> 4)];
        pair[1] = b"0123456789abcdef"[usize::from(byte & 15)];
    }
}

/// The value of a BSON string.
fn string(text: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(text.len() as u32 + 1).to_le_bytes());
    out.extend_from_slice(text);
    out.push(0);
}

#[cfg(test)]
mod tests {
    use tailwater_raw::kind;

    use super::*;

    /// Made with Python: `hmac.new(b"0123456789abcdef", b"\x02" + b"\x02\0\0\0a\0", "sha256").hexdigest()`, and so on.
    #[test]
    fn a_hash_is_the_hmac_of_type_and_bytes() {
        let key = Some(hmac::Key::new(hmac::HMAC_SHA256, b"0123456789abcdef"));
        let redaction = Redaction { mask: "[redacted]".into(), key };
        let check = |kind: u8, bytes: &[u8], expected: &str| {
            let mut out = Vec::new();
            redaction.write(Redact::Hash, Value::new(kind, bytes), &mut out);
            assert_eq!(out, [&65u32.to_le_bytes()[..], expected.as_bytes(), &[0]].concat());
        };
        check(kind::STRING, b"\x02\0\0\0a\0", "8f3d2db6ed1b045dc02f1abfe43fd0121a348a4e199b4acbe72f495b663f96d1");
        check(kind::INT32, &1i32.to_le_bytes(), "e9a469a25ef72f42f53e8c4892dd100e9442a49fae3884ef1f155d56b6082edf");
        check(kind::INT64, &1i64.to_le_bytes(), "9ab596b3968987d2bacd15b3ecd0e6dbb60c16e6b8c56d1f4c1cf8c614693c80");
        check(kind::NULL, b"", "4eff45b3b2773e6209c8b863da8159052013047bf846d64af75ffd627f0d18dd");
        let mut out = Vec::new();
        redaction.write(Redact::Mask, Value::new(kind::NULL, b""), &mut out);
        assert_eq!(out, b"\x0b\0\0\0[redacted]\0");
    }
}
