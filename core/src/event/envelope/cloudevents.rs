//! CloudEvents 1.0 in its JSON format, structured mode (cloudevents/spec v1.0.2, `spec.md` and `formats/json-format.md`).
//!
//! | attribute | is |
//! | --- | --- |
//! | `id` | the event id: with `source` the same for every redelivery, and for no other event |
//! | `source` | `/NAME/DB/COLLECTION`, a URI reference; `NAME` is the deployment's `name`, so that two deployments on one server differ |
//! | `type` | `tailwater.change.` and the operationType: what happened to the document, not what it means to a business |
//! | `subject` | `documentKey._id` as text, an ObjectId as hex digits; none where there is no key, or it is no attribute's text |
//! | `time` | `wallTime`, before MongoDB 6.0 the cluster time |
//! | `data` | the event as JSON, as without an envelope |

use std::ops::Range;

use bson::DateTime;
use tailwater_raw::json::Writer;
use tailwater_raw::{Elements, kind};

use super::string;
use crate::event::{Event, JsonError, JsonForm, json};

/// Milliseconds since 1970 of the years 0 to 9999.
const RFC_3339_MS: Range<i64> = -62_167_219_200_000..253_402_300_800_000;

/// The whole text.
pub(super) fn event(event: &Event, form: JsonForm, deployment: &str) -> Result<Vec<u8>, JsonError> {
    let mut writer = Writer::new(form, form.capacity(event.raw().as_bytes().len()) + 256);
    let (id, source) = (event.id(), source(event, deployment));
    writer.raw(format!("{{\"specversion\":\"1.0\",\"id\":\"{id}\",\"source\":\"{source}\"").as_bytes());
    let operation = string(&format!("tailwater.change.{}", event.operation_type()));
    writer.raw(format!(",\"type\":{operation}").as_bytes());
    if let Some(subject) = subject(event)? {
        writer.raw(format!(",\"subject\":{subject}").as_bytes());
    }
    let time = DateTime::from_millis(event.time_ms()).try_to_rfc3339_string();
    if let Some(time) = time.ok().filter(|_| RFC_3339_MS.contains(&event.time_ms())) {
        writer.raw(format!(",\"time\":\"{time}\"").as_bytes());
    }
    writer.raw(b",\"datacontenttype\":\"application/json\",\"data\":");
    json::write(&mut writer, event.raw(), event.id())?;
    writer.raw(b"}");
    writer.finish()
}

/// All but the unreserved characters of RFC 3986 percent-encoded.
fn source(event: &Event, deployment: &str) -> String {
    let mut source = String::new();
    for part in [deployment, event.db(), event.coll()].into_iter().filter(|part| !part.is_empty()) {
        source.push('/');
        for byte in part.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => source.push(byte.into()),
                byte => source.push_str(&format!("%{byte:02X}")),
            }
        }
    }
    source
}

/// The document's `_id` as a JSON string.
fn subject(event: &Event) -> Result<Option<String>, JsonError> {
    let Some(key) = event.document_key() else { return Ok(None) };
    let Some(id) = Elements::of(key).find(b"_id")? else { return Ok(None) };
    let mut writer = Writer::new(JsonForm::Plain, 32);
    writer.value(id.value, 1)?;
    let json = String::from_utf8(writer.finish()?).unwrap_or_default();
    // Strings, ObjectIds and dates are texts already.
    let text: String = if json.starts_with('"') { serde_json::from_str(&json).unwrap_or_default() } else { json };
    let is_text = id.value.kind() != kind::NULL && !text.is_empty() && !text.chars().any(char::is_control);
    Ok(is_text.then(|| string(&text)))
}
