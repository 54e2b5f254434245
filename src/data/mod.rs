//! What a series is, and where one comes from.
//!
//! This layer knows files and time axes; it does not know windows, models or the terminal.

mod calendar;
mod series;

pub use calendar::{Calendar, Step};
pub use series::Series;
