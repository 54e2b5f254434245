//! What two networks share.

mod feed_forward;
mod instance_norm;

pub use feed_forward::FeedForward;
pub use instance_norm::InstanceNorm;
