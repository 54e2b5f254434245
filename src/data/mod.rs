//! What a series is, and where one comes from.
//!
//! This layer knows files and time axes; it does not know windows, models or the terminal.

mod builtin;
mod calendar;
#[cfg(feature = "datasets")]
mod catalogue;
#[cfg(feature = "datasets")]
pub mod doctor;
#[cfg(feature = "datasets")]
pub mod fetch;
#[cfg(feature = "datasets")]
pub mod loader;
mod manifest;
#[cfg(feature = "datasets")]
mod open;
mod series;
mod synthetic;

pub use builtin::Builtin;
pub use calendar::{Calendar, Step};
#[cfg(feature = "datasets")]
pub use catalogue::Catalogue;
pub use manifest::{Collection, DataFile, Dataset, Folders, Kind, Manifest, SeriesFile, SplitRule};
#[cfg(feature = "datasets")]
pub use open::{Opened, Parts, open, open_file};
pub use series::Series;
pub use synthetic::Synthetic;
