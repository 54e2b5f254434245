//! Operations on candle's tape that do in one pass, on one core, what would be many.
//!
//! Each file is one operation: the function that applies it, its `plain` twin in candle's own
//! operations (what runs on other devices, and what the tests hold it against), and its forward and
//! backward passes over slices. Gradients of weights do not go over the tape: they are written
//! straight into the sink of the pass. In all tensors the last axis is the one that is mapped,
//! normalised or averaged over.

pub mod activation;
pub mod adam;
pub mod attention;
pub mod auto_correlation;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub mod batch_norm;
pub mod causal_attention;
pub mod copies;
pub mod decomposition;
pub mod dropout;
pub mod feed_forward;
pub mod halve;
pub mod linear;
pub mod loss;
pub mod matmul;
pub mod max_pool;
pub mod mixing;
pub mod moving_average;
pub mod neighbours;
pub mod norm;
pub mod panels;
pub mod part;
pub mod per_variate;
pub mod prob_sparse;
pub mod product;
mod simd;
pub(super) mod tape;
#[cfg(test)]
mod tests;
pub mod together;
pub mod transform;
