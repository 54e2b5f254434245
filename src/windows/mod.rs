//! Cutting a series into questions (lookbacks) and answers (targets).
//!
//! This layer knows splits, scaling and windows; it does not know files, or who forecasts.

mod batch;
mod scaler;
mod split;
mod window;

pub use crate::data::SplitRule;
pub use batch::{Batch, Batches, Lookback, Order};
pub use scaler::Scaler;
pub use split::{Part, Split};
pub use window::{Run, Window, WindowShape, Windows};
