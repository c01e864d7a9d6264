//! Raw BSON, read where it lies: the elements of a document, its numbers in one form, and its JSON. Pure: no IO, no clock; knows
//! nothing of events, queries or outputs.
//!
//! Reading order: `element` (what a document is made of), [`number`] (1, 1.0 and NumberLong(1) are one value), [`json`] (Extended
//! JSON and the plain form).

mod element;
pub mod json;
pub mod number;

pub use element::{Damaged, Element, Elements, Value, kind};
