//! stand-in
use prometheus_client::encoding::EncodeLabelSet;
/// x
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutputLabel {
    /// x
    pub output: String,
}
