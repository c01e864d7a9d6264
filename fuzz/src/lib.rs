//! What the targets share: documents and queries made of a fuzzer's bytes. Bytes taken as BSON are nearly always refused at once, so
//! half of the inputs choose what a generator makes, and the other half are the bytes themselves.

mod query;

#[path = "../../raw/tests/json/documents.rs"]
mod documents;

use std::convert::Infallible;

use rand::{RngExt, TryRng};

pub use query::query;

/// Bytes as chance; behind their end there are zeros, with which every generator comes to an end.
pub struct Bytes<'a>(pub &'a [u8]);

impl TryRng for Bytes<'_> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        // The generators look at the upper bits first, and one byte is enough for most of their choices.
        Ok(u32::from_be_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_be_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        let (now, rest) = self.0.split_at(out.len().min(self.0.len()));
        out[..now.len()].copy_from_slice(now);
        out[now.len()..].fill(0);
        self.0 = rest;
        Ok(())
    }
}

/// A document: the bytes themselves, or a made one, whole or with one byte changed.
pub fn document(data: &[u8]) -> Vec<u8> {
    let Some((how, rest)) = data.split_first() else { return Vec::new() };
    if how % 4 == 0 {
        return rest.to_vec();
    }
    let mut bytes = Bytes(rest);
    let (at, byte) = (bytes.random::<u32>() as usize, bytes.random());
    let mut generator = documents::Generator { rng: &mut bytes, takes: &|_, _| true, tags: true };
    let mut document = generator.document(4);
    if how % 4 == 1 {
        let at = at % document.len();
        document[at] = byte;
    }
    document
}
