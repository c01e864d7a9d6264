//! What may be put around an event's JSON, for receivers that know such a format. Knows nothing of outputs.
//!
//! The formats: [`cloudevents`] and [`debezium`]. Both are made of the event as the output is given it: after its projection.

pub mod cloudevents;
pub mod debezium;

use super::{Event, JsonError, JsonForm};

/// What is around an event's JSON.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum Envelope {
    /// Nothing.
    #[default]
    None,
    /// As Debezium's connector for MongoDB publishes it.
    Debezium,
    /// CloudEvents 1.0.
    CloudEvents,
}

impl Envelope {
    /// All of them, in the order of their numbers.
    pub const ALL: [Envelope; 3] = [Envelope::None, Envelope::Debezium, Envelope::CloudEvents];

    /// The word in the configuration.
    pub fn word(self) -> &'static str {
        match self {
            Envelope::None => "none",
            Envelope::Debezium => "debezium",
            Envelope::CloudEvents => "cloudevents",
        }
    }
}

/// How an output wants its JSON.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// How the values of BSON are written.
    pub form: JsonForm,
    /// What is around it.
    pub envelope: Envelope,
}

impl Shape {
    /// How many of them have an envelope.
    pub(super) const ENVELOPED: usize = JsonForm::ALL.len() * (Envelope::ALL.len() - 1);

    /// Its place among those that have an envelope.
    pub(super) fn place(self) -> Option<usize> {
        let envelope = (self.envelope as usize).checked_sub(1)?;
        Some(envelope * JsonForm::ALL.len() + self.form as usize)
    }

    /// A number for each.
    pub fn number(self) -> u8 {
        self.envelope as u8 * JsonForm::ALL.len() as u8 + self.form as u8
    }

    /// The one of a number.
    pub fn of_number(number: u8) -> Shape {
        let (forms, number) = (JsonForm::ALL.len(), usize::from(number));
        let envelope = Envelope::ALL.get(number / forms).copied().unwrap_or_default();
        Shape { form: JsonForm::ALL[number % forms], envelope }
    }
}

impl From<JsonForm> for Shape {
    fn from(form: JsonForm) -> Shape {
        Shape { form, envelope: Envelope::None }
    }
}

/// Makes the text.
pub(super) fn write(event: &Event, shape: Shape, deployment: &str) -> Result<Vec<u8>, JsonError> {
    match shape.envelope {
        Envelope::None => super::json::event(event.raw(), event.id(), shape.form),
        Envelope::Debezium => debezium::event(event, shape.form, deployment),
        Envelope::CloudEvents => cloudevents::event(event, shape.form, deployment),
    }
}

/// A JSON string.
fn string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests;
