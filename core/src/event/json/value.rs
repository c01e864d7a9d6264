//! One BSON value as JSON, in each of the forms.

use bson::{RawArray, RawBsonRef, RawDocument, RawDocumentBuf, spec::BinarySubtype};

use super::{
    JsonError, JsonForm, LEVELS_MAX, damaged,
    scalar::{self, Millis},
};

/// Beyond this a long is a string in the plain form.
const SAFE_INTEGER: u64 = (1 << 53) - 1;

/// Appends values to a buffer.
pub(super) struct Writer {
    out: Vec<u8>,
    form: JsonForm,
}

impl Writer {
    pub fn new(form: JsonForm, capacity: usize) -> Writer {
        Writer { out: Vec::with_capacity(capacity), form }
    }

    pub fn finish(self) -> Vec<u8> {
        self.out
    }

    /// Appends JSON as it is.
    pub fn raw(&mut self, json: &[u8]) {
        self.out.extend_from_slice(json);
    }

    /// Appends `"name":value`.
    pub fn field(&mut self, name: &str, value: RawBsonRef<'_>, level: u32) -> Result<(), JsonError> {
        scalar::string(&mut self.out, name);
        self.out.push(b':');
        self.value(value, level)
    }

    fn value(&mut self, value: RawBsonRef<'_>, level: u32) -> Result<(), JsonError> {
        match value {
            RawBsonRef::String(text) => scalar::string(&mut self.out, text),
            RawBsonRef::Document(document) => self.document(document, level + 1)?,
            RawBsonRef::Array(array) => self.array(array, level + 1)?,
            RawBsonRef::Int32(n) => self.int(n),
            RawBsonRef::Int64(n) => self.long(n),
            RawBsonRef::Double(n) => self.double(n),
            RawBsonRef::Boolean(value) => self.raw(if value { b"true" } else { b"false" }),
            RawBsonRef::Null => self.raw(b"null"),
            RawBsonRef::ObjectId(id) => self.object_id(&id.bytes()),
            RawBsonRef::DateTime(date) => self.date(date.timestamp_millis()),
            RawBsonRef::Timestamp(time) => self.timestamp(time),
            RawBsonRef::Binary(binary) => self.binary(binary.subtype, binary.bytes),
            RawBsonRef::Decimal128(decimal) => {
                let text = decimal.to_string();
                self.tagged_text("$numberDecimal", &text);
            }
            RawBsonRef::Symbol(text) => self.tagged_text("$symbol", text),
            RawBsonRef::JavaScriptCode(code) => self.tagged_text("$code", code),
            RawBsonRef::JavaScriptCodeWithScope(both) => {
                let plain = self.form == JsonForm::Plain;
                self.raw(if plain { b"{\"code\":" } else { b"{\"$code\":" });
                scalar::string(&mut self.out, both.code);
                self.raw(if plain { b",\"scope\":" } else { b",\"$scope\":" });
                self.document(both.scope, level + 1)?;
                self.raw(b"}");
            }
            RawBsonRef::RegularExpression(regex) => self.regex(regex.pattern.as_str(), regex.options.as_str()),
            RawBsonRef::DbPointer(_) => self.db_pointer(value)?,
            RawBsonRef::Undefined => self.constant(b"{\"$undefined\":true}", b"null"),
            RawBsonRef::MinKey => self.constant(b"{\"$minKey\":1}", b"\"MinKey\""),
            RawBsonRef::MaxKey => self.constant(b"{\"$maxKey\":1}", b"\"MaxKey\""),
        }
        Ok(())
    }

    fn document(&mut self, document: &RawDocument, level: u32) -> Result<(), JsonError> {
        if level > LEVELS_MAX {
            return Err(JsonError::Depth(LEVELS_MAX));
        }
        self.raw(b"{");
        for (at, element) in document.iter_elements().enumerate() {
            let element = element.map_err(damaged)?;
            if at > 0 {
                self.out.push(b',');
            }
            self.field(element.key().as_str(), element.value().map_err(damaged)?, level)?;
        }
        self.raw(b"}");
        Ok(())
    }

    fn array(&mut self, array: &RawArray, level: u32) -> Result<(), JsonError> {
        if level > LEVELS_MAX {
            return Err(JsonError::Depth(LEVELS_MAX));
        }
        self.raw(b"[");
        for (at, element) in array.iter_elements().enumerate() {
            if at > 0 {
                self.out.push(b',');
            }
            self.value(element.map_err(damaged)?.value().map_err(damaged)?, level)?;
        }
        self.raw(b"]");
        Ok(())
    }

    fn int(&mut self, n: i32) {
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(n);
        match self.form {
            JsonForm::Canonical => self.tagged_text("$numberInt", digits),
            JsonForm::Relaxed | JsonForm::Plain => self.raw(digits.as_bytes()),
        }
    }

    fn long(&mut self, n: i64) {
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(n);
        match self.form {
            JsonForm::Canonical => self.tagged_text("$numberLong", digits),
            JsonForm::Plain if n.unsigned_abs() > SAFE_INTEGER => scalar::string(&mut self.out, digits),
            JsonForm::Relaxed | JsonForm::Plain => self.raw(digits.as_bytes()),
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
        let in_years = (scalar::YEAR_0_MS..scalar::YEAR_10000_MS).contains(&ms);
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

    fn timestamp(&mut self, time: bson::Timestamp) {
        let plain = self.form == JsonForm::Plain;
        let mut digits = itoa::Buffer::new();
        self.raw(if plain { b"{\"t\":" } else { b"{\"$timestamp\":{\"t\":" });
        self.raw(digits.format(time.time).as_bytes());
        self.raw(b",\"i\":");
        self.raw(digits.format(time.increment).as_bytes());
        self.raw(if plain { b"}" } else { b"}}" });
    }

    fn binary(&mut self, subtype: BinarySubtype, bytes: &[u8]) {
        if self.form == JsonForm::Plain {
            self.raw(b"\"");
            match (subtype, bytes.first_chunk::<16>()) {
                (BinarySubtype::Uuid, Some(uuid)) if bytes.len() == 16 => scalar::uuid(&mut self.out, uuid),
                _ => scalar::base64(&mut self.out, bytes),
            }
            self.raw(b"\"");
        } else {
            self.raw(b"{\"$binary\":{\"base64\":\"");
            scalar::base64(&mut self.out, bytes);
            self.raw(b"\",\"subType\":\"");
            scalar::hex(&mut self.out, &[subtype.into()]);
            self.raw(b"\"}}");
        }
    }

    fn regex(&mut self, pattern: &str, options: &str) {
        // The server stores them sorted; the specification wants them so from any source.
        let mut sorted: Vec<char> = options.chars().collect();
        sorted.sort_unstable();
        let options = String::from_iter(sorted);
        if self.form == JsonForm::Plain {
            return scalar::string(&mut self.out, &format!("/{pattern}/{options}"));
        }
        self.raw(b"{\"$regularExpression\":{\"pattern\":");
        scalar::string(&mut self.out, pattern);
        self.raw(b",\"options\":");
        scalar::string(&mut self.out, &options);
        self.raw(b"}}");
    }

    /// The type has no readable parts in the driver's library, so its bytes are read: a string, then an ObjectId.
    fn db_pointer(&mut self, value: RawBsonRef<'_>) -> Result<(), JsonError> {
        let mut wrapped = RawDocumentBuf::new();
        wrapped.append(bson::cstr!(""), value);
        // Length, type, empty name with its zero; then the string's length.
        let bytes = wrapped.as_bytes();
        let parts = bytes.len().checked_sub(1 + 12 + 1).and_then(|end| Some((bytes.get(10..end)?, &bytes[end + 1..])));
        let damaged = || JsonError::Bson("a DBPointer is too short".into());
        let (namespace, id) = parts.ok_or_else(damaged)?;
        let namespace = std::str::from_utf8(namespace).map_err(|_| damaged())?;
        let plain = self.form == JsonForm::Plain;
        self.raw(if plain { b"{\"ref\":" } else { b"{\"$dbPointer\":{\"$ref\":" });
        scalar::string(&mut self.out, namespace);
        self.raw(if plain { b",\"id\":" } else { b",\"$id\":" });
        self.object_id(&id[..12]);
        self.raw(if plain { b"}" } else { b"}}" });
        Ok(())
    }

    fn constant(&mut self, extended: &[u8], plain: &[u8]) {
        self.raw(if self.form == JsonForm::Plain { plain } else { extended });
    }

    /// Appends `{"tag":"text"}`; in the plain form only the text.
    fn tagged_text(&mut self, tag: &str, text: &str) {
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
