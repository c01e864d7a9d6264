//! One BSON value as JSON, in each of the forms.

use crate::{Damaged, Element, Elements, Value, kind};

use super::{
    JsonError, JsonForm, LEVELS_MAX,
    plain::{SAFE_INTEGER, UUID},
    scalar::{self, Millis},
};

/// Appends JSON to a buffer, value by value; between them the caller writes what holds them together.
pub struct Writer {
    out: Vec<u8>,
    form: JsonForm,
}

/// A document or an array of which more is to be written.
struct Open<'a> {
    elements: Elements<'a>,
    array: bool,
    /// Whether nothing of it is written yet.
    first: bool,
    /// What stands behind its last element.
    end: &'static [u8],
}

/// Whether other values are in one of this type.
#[inline]
fn is_nested(kind: u8) -> bool {
    matches!(kind, kind::DOCUMENT | kind::ARRAY | kind::CODE_WITH_SCOPE)
}

impl Writer {
    /// Begins with an empty buffer of `capacity` bytes.
    pub fn new(form: JsonForm, capacity: usize) -> Writer {
        Writer { out: Vec::with_capacity(capacity), form }
    }

    /// The JSON.
    ///
    /// # Errors
    /// When a text or a name is not UTF-8.
    pub fn finish(self) -> Result<Vec<u8>, JsonError> {
        // Once for all texts and names: between them stands ASCII, so that the whole is UTF-8 when each of them is.
        match std::str::from_utf8(&self.out) {
            Ok(_) => Ok(self.out),
            Err(_) => Err(Damaged::Text.into()),
        }
    }

    /// Appends JSON as it is.
    #[inline]
    pub fn raw(&mut self, json: &[u8]) {
        self.out.extend_from_slice(json);
    }

    /// Appends `"name":value`; `level` is how deep in documents and arrays it stands.
    ///
    /// # Errors
    /// When the value is damaged or nested too deep.
    pub fn field(&mut self, element: &Element<'_>, level: u32) -> Result<(), JsonError> {
        scalar::string(&mut self.out, element.name);
        self.out.push(b':');
        self.value(element.value, level)
    }

    /// Appends a value.
    ///
    /// # Errors
    /// As [`Writer::field`].
    #[inline]
    pub fn value(&mut self, value: Value<'_>, level: u32) -> Result<(), JsonError> {
        if is_nested(value.kind()) {
            let open = self.begin(value);
            self.nested(open, level + 1)
        } else {
            self.scalar(value)
        }
    }

    /// Appends a document.
    ///
    /// # Errors
    /// As [`Writer::field`].
    pub fn document(&mut self, elements: Elements<'_>, level: u32) -> Result<(), JsonError> {
        self.raw(b"{");
        self.nested(Open { elements, array: false, first: true, end: b"}" }, level)
    }

    /// The rest of a document or an array whose beginning is written, and all in it. A loop with a list of what is open: levels of
    /// documents cost no stack of the thread.
    fn nested<'a>(&mut self, mut open: Open<'a>, mut level: u32) -> Result<(), JsonError> {
        if level > LEVELS_MAX {
            return Err(JsonError::Depth(LEVELS_MAX));
        }
        // Without a nested value nothing is allocated.
        let mut outer: Vec<Open<'a>> = Vec::new();
        loop {
            let Some(element) = open.elements.next() else {
                self.raw(open.end);
                let Some(next) = outer.pop() else { return Ok(()) };
                open = next;
                level -= 1;
                continue;
            };
            let element = element?;
            if !open.first {
                self.out.push(b',');
            }
            open.first = false;
            if !open.array {
                scalar::string(&mut self.out, element.name);
                self.out.push(b':');
            }
            if is_nested(element.value.kind()) {
                level += 1;
                if level > LEVELS_MAX {
                    return Err(JsonError::Depth(LEVELS_MAX));
                }
                let inner = self.begin(element.value);
                outer.push(std::mem::replace(&mut open, inner));
            } else {
                self.scalar(element.value)?;
            }
        }
    }

    /// Writes what stands before the first element of a document, an array, or code's scope.
    fn begin<'a>(&mut self, value: Value<'a>) -> Open<'a> {
        let (array, end): (bool, &'static [u8]) = match value.kind() {
            kind::DOCUMENT => (false, b"}"),
            kind::ARRAY => (true, b"]"),
            _ => {
                let plain = self.form == JsonForm::Plain;
                let (code, scope) = value.code_with_scope();
                self.raw(if plain { b"{\"code\":" } else { b"{\"$code\":" });
                scalar::string(&mut self.out, code.text());
                self.raw(if plain { b",\"scope\":{" } else { b",\"$scope\":{" });
                return Open { elements: scope.elements(), array: false, first: true, end: b"}}" };
            }
        };
        self.out.push(if array { b'[' } else { b'{' });
        Open { elements: value.elements(), array, first: true, end }
    }

    /// Any value but those that [`Writer::begin`] takes.
    fn scalar(&mut self, value: Value<'_>) -> Result<(), JsonError> {
        match value.kind() {
            kind::STRING => scalar::string(&mut self.out, value.text()),
            kind::INT32 => self.int(value.int32()),
            kind::INT64 => self.long(value.int64()),
            kind::DOUBLE => self.double(value.double()),
            kind::BOOLEAN => self.raw(if value.boolean() { b"true" } else { b"false" }),
            kind::NULL => self.raw(b"null"),
            kind::OBJECT_ID => self.object_id(value.bytes()),
            kind::DATE => self.date(value.int64()),
            kind::TIMESTAMP => self.timestamp(value.int64() as u64),
            kind::BINARY => self.binary(value),
            kind::DECIMAL128 => {
                let plain = self.form == JsonForm::Plain;
                self.raw(if plain { b"\"" } else { b"{\"$numberDecimal\":\"" });
                scalar::decimal(&mut self.out, value.decimal128());
                self.raw(if plain { b"\"" } else { b"\"}" });
            }
            kind::SYMBOL => self.tagged_text("$symbol", value.text()),
            kind::CODE => self.tagged_text("$code", value.text()),
            kind::REGEX => self.regex(value)?,
            kind::DB_POINTER => self.db_pointer(value),
            kind::UNDEFINED => self.constant(b"{\"$undefined\":true}", b"null"),
            kind::MIN_KEY => self.constant(b"{\"$minKey\":1}", b"\"MinKey\""),
            // No other type is let in by the reader.
            _ => self.constant(b"{\"$maxKey\":1}", b"\"MaxKey\""),
        }
        Ok(())
    }

    fn int(&mut self, n: i32) {
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(n).as_bytes();
        match self.form {
            JsonForm::Canonical => self.tagged_text("$numberInt", digits),
            JsonForm::Relaxed | JsonForm::Plain => self.raw(digits),
        }
    }

    fn long(&mut self, n: i64) {
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(n).as_bytes();
        match self.form {
            JsonForm::Canonical => self.tagged_text("$numberLong", digits),
            JsonForm::Plain if n.unsigned_abs() > SAFE_INTEGER => scalar::string(&mut self.out, digits),
            JsonForm::Relaxed | JsonForm::Plain => self.raw(digits),
        }
    }

    fn double(&mut self, n: f64) {
        let (before, after): (&[u8], &[u8]) = match self.form {
            JsonForm::Relaxed | JsonForm::Plain if n.is_finite() => (b"", b""),
            JsonForm::Relaxed | JsonForm::Canonical => (b"{\"$numberDouble\":\"", b"\"}"),
            JsonForm::Plain => (b"\"", b"\""),
        };
        self.raw(before);
        scalar::double(&mut self.out, n);
        self.raw(after);
    }

    fn object_id(&mut self, bytes: &[u8]) {
        let plain = self.form == JsonForm::Plain;
        self.raw(if plain { b"\"" } else { b"{\"$oid\":\"" });
        scalar::hex(&mut self.out, bytes);
        self.raw(if plain { b"\"" } else { b"\"}" });
    }

    fn date(&mut self, ms: i64) {
        let in_years = scalar::is_in_years(ms);
        let mut digits = itoa::Buffer::new();
        match self.form {
            // The specification keeps readable dates to the years 1970 to 9999.
            JsonForm::Relaxed if in_years && ms >= 0 => {
                self.raw(b"{\"$date\":\"");
                scalar::date(&mut self.out, ms, Millis::UnlessZero);
                self.raw(b"\"}");
            }
            JsonForm::Plain if in_years => {
                self.raw(b"\"");
                scalar::date(&mut self.out, ms, Millis::Always);
                self.raw(b"\"");
            }
            JsonForm::Plain => self.raw(digits.format(ms).as_bytes()),
            JsonForm::Relaxed | JsonForm::Canonical => {
                self.raw(b"{\"$date\":{\"$numberLong\":\"");
                self.raw(digits.format(ms).as_bytes());
                self.raw(b"\"}}");
            }
        }
    }

    fn timestamp(&mut self, time: u64) {
        let plain = self.form == JsonForm::Plain;
        let mut digits = itoa::Buffer::new();
        self.raw(if plain { b"{\"t\":" } else { b"{\"$timestamp\":{\"t\":" });
        self.raw(digits.format(time >> 32).as_bytes());
        self.raw(b",\"i\":");
        self.raw(digits.format(time as u32).as_bytes());
        self.raw(if plain { b"}" } else { b"}}" });
    }

    fn binary(&mut self, value: Value<'_>) {
        let (subtype, bytes) = value.binary();
        if self.form == JsonForm::Plain {
            self.raw(b"\"");
            match bytes.first_chunk::<16>() {
                Some(uuid) if subtype == UUID && bytes.len() == 16 => scalar::uuid(&mut self.out, uuid),
                _ => scalar::base64(&mut self.out, bytes),
            }
            self.raw(b"\"");
        } else {
            self.raw(b"{\"$binary\":{\"base64\":\"");
            scalar::base64(&mut self.out, bytes);
            self.raw(b"\",\"subType\":\"");
            scalar::hex(&mut self.out, &[subtype]);
            self.raw(b"\"}}");
        }
    }

    fn regex(&mut self, value: Value<'_>) -> Result<(), JsonError> {
        let (pattern, options) = value.regex();
        let options = scalar::sorted(options)?;
        if self.form == JsonForm::Plain {
            scalar::string(&mut self.out, &[b"/", pattern, b"/", options.as_bytes()].concat());
            return Ok(());
        }
        self.raw(b"{\"$regularExpression\":{\"pattern\":");
        scalar::string(&mut self.out, pattern);
        self.raw(b",\"options\":");
        scalar::string(&mut self.out, options.as_bytes());
        self.raw(b"}}");
        Ok(())
    }

    fn db_pointer(&mut self, value: Value<'_>) {
        let (namespace, id) = value.db_pointer();
        let plain = self.form == JsonForm::Plain;
        self.raw(if plain { b"{\"ref\":" } else { b"{\"$dbPointer\":{\"$ref\":" });
        scalar::string(&mut self.out, namespace);
        self.raw(if plain { b",\"id\":" } else { b",\"$id\":" });
        self.object_id(id);
        self.raw(if plain { b"}" } else { b"}}" });
    }

    fn constant(&mut self, extended: &[u8], plain: &[u8]) {
        self.raw(if self.form == JsonForm::Plain { plain } else { extended });
    }

    /// Appends `{"tag":"text"}`; in the plain form only the text.
    fn tagged_text(&mut self, tag: &str, text: &[u8]) {
        if self.form == JsonForm::Plain {
            return scalar::string(&mut self.out, text);
        }
        self.raw(b"{\"");
        self.raw(tag.as_bytes());
        self.raw(b"\":");
        scalar::string(&mut self.out, text);
        self.raw(b"}");
    }
}
