//! One BSON value as the plain form has it, not yet as text: for those who want a value and no JSON, such as templates.

use std::borrow::Cow;

use crate::{Damaged, Elements, Value, kind};

use super::scalar::{self, Millis};

/// The subtype of a UUID.
pub(super) const UUID: u8 = 4;
/// Beyond this a long is a string in the plain form.
pub(super) const SAFE_INTEGER: u64 = (1 << 53) - 1;

/// What a value is in the plain form of JSON; see the table of [`super`].
#[derive(Clone, Debug)]
pub enum Plain<'a> {
    /// null.
    Null,
    /// true or false.
    Boolean(bool),
    /// A whole number that is not a string.
    Integer(i64),
    /// A finite number.
    Double(f64),
    /// A string.
    Text(Cow<'a, str>),
    /// A list.
    Array(Elements<'a>),
    /// An object, as it stands in the document.
    Document(Elements<'a>),
    /// `{"t": seconds, "i": increment}`.
    Timestamp(u32, u32),
    /// `{"code": text, "scope": {…}}`.
    CodeWithScope(&'a str, Elements<'a>),
    /// `{"ref": namespace, "id": ObjectId}`.
    DbPointer(&'a str, String),
}

impl<'a> Plain<'a> {
    /// The value in the plain form. Of a document and an array nothing is read.
    ///
    /// # Errors
    /// When a text is not UTF-8.
    pub fn of(value: Value<'a>) -> Result<Plain<'a>, Damaged> {
        Ok(match value.kind() {
            kind::STRING | kind::SYMBOL | kind::CODE => Plain::Text(utf8(value.text())?.into()),
            kind::DOCUMENT => Plain::Document(value.elements()),
            kind::ARRAY => Plain::Array(value.elements()),
            kind::INT32 => Plain::Integer(i64::from(value.int32())),
            kind::INT64 if value.int64().unsigned_abs() > SAFE_INTEGER => Plain::Text(value.int64().to_string().into()),
            kind::INT64 => Plain::Integer(value.int64()),
            kind::DOUBLE if value.double().is_finite() => Plain::Double(value.double()),
            kind::DOUBLE => written(|out| scalar::double(out, value.double())),
            kind::BOOLEAN => Plain::Boolean(value.boolean()),
            kind::NULL | kind::UNDEFINED => Plain::Null,
            kind::OBJECT_ID => written(|out| scalar::hex(out, value.bytes())),
            kind::DATE if scalar::is_in_years(value.int64()) => {
                written(|out| scalar::date(out, value.int64(), Millis::Always))
            }
            kind::DATE => Plain::Integer(value.int64()),
            kind::TIMESTAMP => Plain::Timestamp((value.int64() as u64 >> 32) as u32, value.int64() as u32),
            kind::BINARY => {
                let (subtype, bytes) = value.binary();
                match <&[u8; 16]>::try_from(bytes) {
                    Ok(uuid) if subtype == UUID => written(|out| scalar::uuid(out, uuid)),
                    _ => written(|out| scalar::base64(out, bytes)),
                }
            }
            kind::DECIMAL128 => written(|out| scalar::decimal(out, value.decimal128())),
            kind::CODE_WITH_SCOPE => {
                let (code, scope) = value.code_with_scope();
                Plain::CodeWithScope(utf8(code.text())?, scope.elements())
            }
            kind::REGEX => {
                let (pattern, options) = value.regex();
                let options = scalar::sorted(options)?;
                Plain::Text(format!("/{}/{options}", utf8(pattern)?).into())
            }
            kind::DB_POINTER => {
                let (namespace, id) = value.db_pointer();
                let mut hex = Vec::with_capacity(24);
                scalar::hex(&mut hex, id);
                Plain::DbPointer(utf8(namespace)?, ascii(hex))
            }
            kind::MIN_KEY => Plain::Text("MinKey".into()),
            // No other type is let in by the reader.
            _ => Plain::Text("MaxKey".into()),
        })
    }
}

fn utf8(text: &[u8]) -> Result<&str, Damaged> {
    std::str::from_utf8(text).map_err(|_| Damaged::Text)
}

/// What one of the writers of `scalar` writes, all of which is ASCII.
fn written<'a>(write: impl FnOnce(&mut Vec<u8>)) -> Plain<'a> {
    let mut out = Vec::with_capacity(32);
    write(&mut out);
    Plain::Text(ascii(out).into())
}

fn ascii(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("ASCII")
}
