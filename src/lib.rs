//! longcast: time-series forecasters behind one trait, honest scores, and records anyone can re-run.
//!
//! A [`Series`](data::Series) is split and scaled, cut into [`Windows`](windows::Windows), learnt by
//! a [`Forecaster`](forecaster::Forecaster) and scored by [`evaluate`](evaluator::evaluate). For raw
//! values in and out, a [`Pipeline`](forecaster::Pipeline) holds scaler and forecaster together:
//!
//! ```
//! use longcast::{
//!     data::Synthetic,
//!     forecaster::{Pipeline, Plan},
//!     models,
//!     windows::SplitRule,
//! };
//!
//! # fn main() -> longcast::Result<()> {
//! let series = Synthetic::default().series()?;
//! let split = SplitRule::Ratio([0.7, 0.1, 0.2]).split(series.len())?;
//! let plan = Plan::new("ridge", 96, 24);
//! let pipeline = Pipeline::fit(&models::builtin(), &plan, &series, &split, &mut ())?;
//! let next = pipeline.forecast(&series)?;
//! assert_eq!(next.values.dim(), (24, series.variates().len()));
//! # Ok(())
//! # }
//! ```
//!
//! [`guide`] has a page for each use: forecasts from the command line, benchmarks, embedding.
//!
//! # Features
//!
//! - `cli` (default): the program; needs the others.
//! - `datasets`: files (polars), the manifest of data sets, benchmarks and reports.
//! - `regressors`: the forecasters made of linfa's regressors.
//! - `neural`: the forecasters trained by gradient descent (candle).
//! - `cuda`: the same on an NVIDIA GPU; not among the defaults, since it needs `nvcc` to build.
//!
//! With `default-features = false` there remain the trait, windows, metrics, the rules and the
//! closed-form maps, without polars, candle or clap.

/// A guide a use.
pub mod guide {
    #[doc = include_str!("../docs/forecasting.md")]
    pub mod forecasting {}

    #[doc = include_str!("../docs/benchmarks.md")]
    pub mod benchmarks {}

    #[doc = include_str!("../docs/embedding.md")]
    pub mod embedding {}
}

#[cfg(feature = "datasets")]
pub mod benchmark;
#[cfg(feature = "cli")]
pub mod cli;
pub mod data;
pub mod error;
pub mod evaluator;
pub mod forecaster;
pub mod models;
#[cfg(feature = "datasets")]
pub mod report;
pub mod windows;

pub use error::{Error, Result};

/// The examples of the README, compiled and run with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
