//! JSON of an event, in one of the forms of [`tailwater_raw::json`].
//!
//! The event's fields keep the server's names and order. `id`, the event id, stands first; `_id`, the resume
//! token, is left out, and so is a field `id` that a pipeline may have added.

use bson::RawDocument;
use tailwater_raw::Elements;
use tailwater_raw::json::Writer;
pub use tailwater_raw::json::{JsonError, JsonForm};

use super::EventId;

/// The event's JSON.
pub(super) fn event(raw: &RawDocument, id: &EventId, form: JsonForm) -> Result<Vec<u8>, JsonError> {
    let mut writer = Writer::new(form, form.capacity(raw.as_bytes().len()));
    write(&mut writer, raw, id)?;
    writer.finish()
}

/// The same at the end of what is there already.
pub(super) fn write(writer: &mut Writer, raw: &RawDocument, id: &EventId) -> Result<(), JsonError> {
    writer.raw(b"{\"id\":\"");
    writer.raw(id.as_str().as_bytes());
    writer.raw(b"\"");
    for element in Elements::of(raw) {
        let element = element?;
        if element.name != b"_id" && element.name != b"id" {
            writer.raw(b",");
            writer.field(&element, 1)?;
        }
    }
    writer.raw(b"}");
    Ok(())
}

#[cfg(test)]
mod tests;
