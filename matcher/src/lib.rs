//! MongoDB's query language over raw BSON. Pure: no IO, no clock.

pub mod number;
