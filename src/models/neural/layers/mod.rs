//! What two networks share.

mod embedding;
mod feed_forward;
mod instance_norm;

pub use embedding::{StepEmbedding, infer_steps, sinusoids};
pub use feed_forward::FeedForward;
pub use instance_norm::InstanceNorm;
