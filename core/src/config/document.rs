//! Free-form TOML as BSON (`match`, `pipeline`) or JSON (`options`). Key order is kept: MongoDB compares
//! sub-documents in order.

use bson::{Bson, Document};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use toml::de::DeValue;

use super::entry::Entry;
use super::error::ConfigError;

/// The wrappers of MongoDB Extended JSON (specification `extended-json`) that stand for one value. `$regex` is not
/// here: it is a query operator too, and the operator means the same.
const EXTENDED: [&str; 16] = [
    "$oid",
    "$date",
    "$numberInt",
    "$numberLong",
    "$numberDouble",
    "$numberDecimal",
    "$binary",
    "$uuid",
    "$timestamp",
    "$regularExpression",
    "$minKey",
    "$maxKey",
    "$symbol",
    "$code",
    "$undefined",
    "$dbPointer",
];

/// A table as a BSON document. Dates become BSON dates, whole numbers the smallest BSON integer, and the wrappers of
/// Extended JSON the value they stand for.
///
/// # Errors
/// Not a table, a date without an offset, a wrapper that does not hold what it says, a missing reference.
pub fn document(entry: &Entry<'_>) -> Result<Document, ConfigError> {
    match bson(entry)? {
        Bson::Document(document) => Ok(document),
        _ => Err(entry.wrong_type("a table such as { operationType = \"insert\" }")),
    }
}

/// A value as JSON, with its references replaced. Dates become RFC 3339 strings.
///
/// # Errors
/// A number JSON cannot hold, a missing reference.
pub fn json(entry: &Entry<'_>) -> Result<serde_json::Value, ConfigError> {
    Ok(match entry.value() {
        DeValue::String(_) => entry.string()?.into(),
        DeValue::Integer(_) => integer(entry)?.into(),
        DeValue::Float(_) => {
            let number = serde_json::Number::from_f64(float(entry)?);
            number.ok_or_else(|| entry.error("is not finite, write a finite number"))?.into()
        }
        DeValue::Boolean(value) => (*value).into(),
        DeValue::Datetime(value) => value.to_string().into(),
        DeValue::Array(_) => entry.array("[]")?.iter().map(json).collect::<Result<Vec<_>, _>>()?.into(),
        DeValue::Table(table) => {
            let mut object = serde_json::Map::new();
            for (key, value) in table {
                object.insert(key.get_ref().to_string(), json(&entry.child(key.get_ref(), value))?);
            }
            object.into()
        }
    })
}

fn bson(entry: &Entry<'_>) -> Result<Bson, ConfigError> {
    Ok(match entry.value() {
        DeValue::String(_) => Bson::String(entry.string()?),
        DeValue::Integer(_) => {
            let value = integer(entry)?;
            i32::try_from(value).map_or(Bson::Int64(value), Bson::Int32)
        }
        DeValue::Float(_) => Bson::Double(float(entry)?),
        DeValue::Boolean(value) => Bson::Boolean(*value),
        DeValue::Datetime(value) => {
            let hint = "has no offset, write a time such as 2026-01-31T00:00:00Z";
            let time = OffsetDateTime::parse(&value.to_string(), &Rfc3339).map_err(|_| entry.error(hint))?;
            let ms = i64::try_from(time.unix_timestamp_nanos() / 1_000_000).expect("years 0 to 9999 fit");
            Bson::DateTime(bson::DateTime::from_millis(ms))
        }
        DeValue::Array(_) => Bson::Array(entry.array("[]")?.iter().map(bson).collect::<Result<_, _>>()?),
        DeValue::Table(table) => {
            if table.keys().next().is_some_and(|key| EXTENDED.contains(&&**key.get_ref())) {
                return extended(entry);
            }
            let mut document = Document::new();
            for (key, value) in table {
                document.insert(key.get_ref().to_string(), bson(&entry.child(key.get_ref(), value))?);
            }
            Bson::Document(document)
        }
    })
}

fn extended(entry: &Entry<'_>) -> Result<Bson, ConfigError> {
    let wrapped = json(entry)?;
    // A whole number of milliseconds is what people write; Extended JSON wants it wrapped once more.
    let wrapped = match wrapped.get("$date").and_then(serde_json::Value::as_i64) {
        Some(ms) => serde_json::json!({ "$date": { "$numberLong": ms.to_string() } }),
        None => wrapped,
    };
    match serde_json::from_value(wrapped) {
        Ok(Bson::Document(_)) => {
            Err(entry.error("is not an Extended JSON value, write for example { \"$oid\" = \"…\" }"))
        }
        Ok(value) => Ok(value),
        Err(error) => Err(entry.error(format!("is not an Extended JSON value: {error}"))),
    }
}

fn integer(entry: &Entry<'_>) -> Result<i64, ConfigError> {
    let DeValue::Integer(number) = entry.value() else { return Err(entry.wrong_type("a whole number")) };
    let parsed = i64::from_str_radix(&number.as_str().replace('_', ""), number.radix());
    parsed.map_err(|_| entry.error(format!("{number} does not fit into 64 bits")))
}

fn float(entry: &Entry<'_>) -> Result<f64, ConfigError> {
    let DeValue::Float(number) = entry.value() else { return Err(entry.wrong_type("a number")) };
    number.as_str().replace('_', "").parse().map_err(|_| entry.error(format!("{number} is not a number")))
}
