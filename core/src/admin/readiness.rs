//! stand-in
#![allow(missing_docs)]
#[derive(Clone)]
pub struct Readiness;
pub struct Condition;
impl Readiness {
    pub fn wait_for(&self, _: &str) -> Condition {
        Condition
    }
}
impl Condition {
    pub fn done(self) {}
}
