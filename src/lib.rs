//! longcast: time-series forecasters behind one trait, honest scores, and records anyone can re-run.

pub mod data;
pub mod error;
pub mod evaluator;
pub mod forecaster;
pub mod models;
pub mod windows;

pub use error::{Error, Result};
