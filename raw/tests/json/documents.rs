//! Documents over every type of BSON and its edge values, built byte by byte: most of the edges are what no library would write.

use rand::{Rng, RngExt};
use tailwater_raw::kind;

/// A value: its type, and its bytes as they stand in a document.
pub type Value = (u8, Vec<u8>);

/// A document of these fields.
pub fn document(fields: &[(String, Value)]) -> Vec<u8> {
    let mut out = vec![0; 4];
    for (name, (kind, bytes)) in fields {
        out.push(*kind);
        out.extend_from_slice(name.as_bytes());
        out.push(0);
        out.extend_from_slice(bytes);
    }
    out.push(0);
    let length = i32::try_from(out.len()).expect("a document's length");
    out[..4].copy_from_slice(&length.to_le_bytes());
    out
}

/// Length, text, zero.
pub fn string(text: &str) -> Vec<u8> {
    [&(text.len() as i32 + 1).to_le_bytes()[..], text.as_bytes(), b"\0"].concat()
}

/// Length, subtype, content; the old subtype has the length twice.
pub fn binary(subtype: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len() as i32;
    match subtype {
        2 => [&(length + 4).to_le_bytes()[..], &[2], &length.to_le_bytes(), content].concat(),
        _ => [&length.to_le_bytes()[..], &[subtype], content].concat(),
    }
}

/// Pattern and options, each with a zero.
pub fn regex(pattern: &str, options: &str) -> Vec<u8> {
    [pattern.as_bytes(), b"\0", options.as_bytes(), b"\0"].concat()
}

/// Text and scope, with the length of both.
pub fn code_with_scope(code: &str, scope: &[u8]) -> Vec<u8> {
    let code = string(code);
    [&(4 + code.len() as i32 + scope.len() as i32).to_le_bytes()[..], &code, scope].concat()
}

/// Makes documents. `takes` says which values are wanted; another is drawn for the rest.
pub struct Generator<'a, R> {
    pub rng: &'a mut R,
    pub takes: &'a dyn Fn(u8, &[u8]) -> bool,
    /// Whether names may be those of Extended JSON, which cannot be told from its tags when it is read back.
    pub tags: bool,
}

impl<R: Rng> Generator<'_, R> {
    /// A document of up to eight fields, with no name twice.
    pub fn document(&mut self, levels: u32) -> Vec<u8> {
        let mut fields: Vec<(String, Value)> = Vec::new();
        for _ in 0..self.rng.random_range(0..8) {
            let name = self.name();
            if fields.iter().all(|(other, _)| *other != name) {
                fields.push((name, self.value(levels)));
            }
        }
        document(&fields)
    }

    fn array(&mut self, levels: u32) -> Vec<u8> {
        let fields: Vec<_> =
            (0..self.rng.random_range(0..5)).map(|at: u32| (at.to_string(), self.value(levels))).collect();
        document(&fields)
    }

    /// A value that the filter takes.
    pub fn value(&mut self, levels: u32) -> Value {
        loop {
            let kind = self.kind(levels);
            let bytes = self.bytes(kind, levels);
            if (self.takes)(kind, &bytes) {
                return (kind, bytes);
            }
        }
    }

    fn kind(&mut self, levels: u32) -> u8 {
        const FLAT: [u8; 18] = [
            kind::DOUBLE,
            kind::STRING,
            kind::BINARY,
            kind::UNDEFINED,
            kind::OBJECT_ID,
            kind::BOOLEAN,
            kind::DATE,
            kind::NULL,
            kind::REGEX,
            kind::DB_POINTER,
            kind::CODE,
            kind::SYMBOL,
            kind::INT32,
            kind::TIMESTAMP,
            kind::INT64,
            kind::DECIMAL128,
            kind::MAX_KEY,
            kind::MIN_KEY,
        ];
        match self.rng.random_range(0..if levels > 0 { 22 } else { 18 }) {
            18 | 19 => kind::DOCUMENT,
            20 => kind::ARRAY,
            21 => kind::CODE_WITH_SCOPE,
            flat => FLAT[flat],
        }
    }

    fn bytes(&mut self, kind: u8, levels: u32) -> Vec<u8> {
        match kind {
            kind::DOUBLE => self.double().to_le_bytes().into(),
            kind::STRING | kind::CODE | kind::SYMBOL => string(&self.text()),
            kind::DOCUMENT => self.document(levels - 1),
            kind::ARRAY => self.array(levels - 1),
            kind::BINARY => {
                let subtype = self.pick(&[0, 0, 1, 2, 2, 3, 4, 4, 5, 6, 7, 8, 0x7f, 0x80, 0xff]);
                let length = self.pick(&[0, 1, 2, 3, 4, 15, 16, 16, 17, 40]);
                let content: Vec<u8> = (0..length).map(|_| self.rng.random()).collect();
                binary(subtype, &content)
            }
            kind::OBJECT_ID => self.rng.random::<[u8; 12]>().into(),
            kind::BOOLEAN => vec![u8::from(self.rng.random::<bool>())],
            kind::DATE => self.date().to_le_bytes().into(),
            kind::REGEX => {
                let pattern = self.text().replace('\0', "");
                let options = self.pick(&["", "i", "im", "mi", "xi", "ilmsux", "xusmli", "s", "u"]);
                regex(&pattern, options)
            }
            kind::DB_POINTER => [string(&self.text()), self.rng.random::<[u8; 12]>().into()].concat(),
            kind::CODE_WITH_SCOPE => {
                let scope = self.document(levels - 1);
                code_with_scope(&self.text(), &scope)
            }
            kind::INT32 => {
                let random = self.rng.random();
                self.pick(&[0, 1, -1, i32::MIN, i32::MAX, i32::MIN + 1, random, random]).to_le_bytes().into()
            }
            kind::TIMESTAMP => {
                let random = self.rng.random();
                self.pick(&[0, 1, u64::MAX, 1 << 63, (1 << 31) | 1, 0xffff_ffff, random]).to_le_bytes().into()
            }
            kind::INT64 => self.long().to_le_bytes().into(),
            kind::DECIMAL128 => self.decimal().to_le_bytes().into(),
            // The others have no bytes.
            _ => Vec::new(),
        }
    }

    fn double(&mut self) -> f64 {
        let random: u64 = self.rng.random();
        let bits = self.pick(&[
            // Quiet and signalling NaN, with a sign, with a payload.
            0x7ff8_0000_0000_0000,
            0xfff8_0000_0000_0000,
            0x7ff0_0000_0000_0001,
            0xffff_ffff_ffff_ffff,
            // Subnormals.
            1,
            0x8000_0000_0000_0001,
            0x000f_ffff_ffff_ffff,
            random & 0x800f_ffff_ffff_ffff,
            random,
            random,
        ]);
        let whole = f64::from(self.rng.random_range(-1000..1000)) / 8.0;
        let power = 10f64.powi(self.rng.random_range(-30..30));
        let edges = [0.0, -0.0, 1.0, 0.1, 1e15, 1e16, 1e17, 1e20, -1e20, 1e21, 1e22, 1e23, 1e-4, 1e-5, 1e-7, 5e-324];
        let edge = self.pick(&edges);
        let limit = self.pick(&[f64::MAX, f64::MIN, f64::MIN_POSITIVE, f64::INFINITY, f64::NEG_INFINITY, 1.7e308]);
        self.pick(&[f64::from_bits(bits), whole, power, edge, limit])
    }

    fn date(&mut self) -> i64 {
        const YEAR_10000: i64 = 253_402_300_800_000;
        const YEAR_0: i64 = -62_167_219_200_000;
        let edge = self.pick(&[0, 1, -1, 10, 100, 999, 1000, 1_709_208_000_000, 951_782_400_120, i64::MIN, i64::MAX]);
        let year = self.pick(&[YEAR_10000 - 1, YEAR_10000, YEAR_10000 + 1, YEAR_0, YEAR_0 - 1, 5 * YEAR_10000]);
        let usual = self.rng.random_range(0..YEAR_10000);
        let second = self.rng.random_range(0..253_402_300_800) * 1000;
        let before = self.rng.random_range(YEAR_0..0);
        let random = self.rng.random();
        self.pick(&[edge, edge, year, usual, usual, second, before, random])
    }

    fn long(&mut self) -> i64 {
        let random = self.rng.random();
        let small = self.rng.random_range(-1000..1000);
        let edge = self.pick(&[0, 1 << 31, -(1 << 31), (1 << 31) - 1, -(1 << 31) - 1, i64::MIN, i64::MAX]);
        self.pick(&[edge, random, small, (1 << 53) - 1, 1 << 53, -(1 << 53)])
    }

    /// Decimals of all shapes, by their parts: sign, exponent from -6176, coefficient (IEEE 754-2008, binary integer significand).
    fn decimal(&mut self) -> u128 {
        let finite = |exponent: i32, coefficient: u128| ((exponent + 6176) as u128) << 113 | coefficient;
        let digits = self.rng.random_range(1..35);
        let coefficient = self.rng.random_range(0..10u128.pow(digits));
        let exponent = self.rng.random_range(-6176..=6111);
        let near = self.rng.random_range(-45..10);
        let random: u128 = self.rng.random();
        let magnitude = self.pick(&[
            finite(0, 0),
            finite(-6176, 0),
            finite(6111, 0),
            finite(3, 0),
            finite(-7, 0),
            finite(0, 1),
            finite(-6, 1),
            finite(-7, 1),
            finite(-2, 150),
            finite(6111, 10u128.pow(34) - 1),
            finite(-6176, 1),
            finite(exponent, coefficient),
            finite(near, coefficient),
            finite(near, coefficient),
            // More than 34 digits: zero by the standard, with this exponent.
            finite(near, 10u128.pow(34)),
            finite(exponent, (1 << 113) - 1),
            // The large form of a significand, all of which is above 34 digits, too.
            3 << 125 | random >> 5,
            // Infinities and NaN, with and without more bits.
            0b11110 << 122,
            0b11110 << 122 | random >> 10,
            0b11111 << 122,
            0b111111 << 121,
            0b11111 << 122 | random >> 10,
            random >> 1,
        ]);
        magnitude | u128::from(self.rng.random_bool(0.3)) << 127
    }

    fn name(&mut self) -> String {
        const NAMES: [&str; 16] =
            ["", "a", "b", "key", "a.b", "é", "漢字", "\"", "\\", "\n", "😀", "id", "$", "$oidx", "a$oid", "0"];
        const TAGS: [&str; 8] = ["$oid", "$date", "$numberLong", "$binary", "$code", "$scope", "$symbol", "$minKey"];
        match self.rng.random_range(0..10) {
            0 if self.tags => self.pick(&TAGS).to_owned(),
            1..4 => self.text().replace(['\0', '$'], ""),
            _ => self.pick(&NAMES).to_owned(),
        }
    }

    /// Text with what JSON must escape, with zeros, with characters of one to four bytes.
    fn text(&mut self) -> String {
        const PIECES: [&str; 16] = [
            "a", "text", "\"", "\\", "\n", "\r\t", "\u{1}", "\u{1f}", "\0", "é", "漢", "😀", "/", "\u{7f}", "\u{2028}",
            "$oid",
        ];
        let pieces = if self.rng.random_bool(0.05) { 200 } else { 8 };
        let mut text = String::new();
        for _ in 0..self.rng.random_range(0..pieces) {
            match self.rng.random_range(0..20) {
                16 | 17 => text.push(char::from(self.rng.random_range(0..0x80u8))),
                18 => text.push(char::from_u32(self.rng.random_range(0..0x11_0000)).unwrap_or('\u{fffd}')),
                piece => text.push_str(PIECES[piece % 16]),
            }
        }
        text
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.rng.random_range(0..of.len())]
    }
}
