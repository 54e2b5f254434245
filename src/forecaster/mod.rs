//! The contract: what a forecasting method takes, gives and keeps.
//!
//! This layer knows windows and series. It does not know any particular model, nor what they are
//! made of.

pub mod contract;
mod folder;
mod intervals;
mod params;
mod pipeline;
mod preset;
mod registry;

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::Duration,
};

use ndarray::Array3;
use serde::{Deserialize, Serialize};

pub use intervals::Intervals;
pub use params::Params;
pub use pipeline::{Forecast, Interval, Pipeline, Plan};
pub use preset::Preset;
pub use registry::Registry;

use crate::{
    Error, Result,
    windows::{Lookback, WindowShape, Windows},
};

/// A forecasting method: learns from the past of a series and continues it.
///
/// Object safe: the registry, the evaluator and pipelines all hold a `Box<dyn Forecaster>`.
/// [`contract::check`] tests the laws that are stated here.
pub trait Forecaster: Send + Sync {
    /// Learns from `train`. May look at `valid` to choose or to stop early; the test rows are
    /// never given to it.
    ///
    /// After [`load`](Self::load) it goes on from what was loaded, where the method can (a warm
    /// start); otherwise it learns anew.
    ///
    /// # Errors
    /// If nothing can be learnt from these windows, or `observer` asked to stop
    /// ([`Error::Interrupted`]).
    fn fit(&mut self, train: &Windows<'_>, valid: &Windows<'_>, observer: &mut dyn FitObserver) -> Result<()>;

    /// Learns anew from `all`, what [`fit`](Self::fit) chose by the validation windows left as it is; `false`
    /// where the method cannot. Then, and after an error, everything stays as it was fitted.
    ///
    /// For forecasts past the last row, when there is nothing left to choose.
    ///
    /// # Errors
    /// As for [`fit`](Self::fit).
    fn refit(&mut self, _all: &Windows<'_>, _observer: &mut dyn FitObserver) -> Result<bool> {
        Ok(false)
    }

    /// Continues each lookback: `[batch, lookback, variates]` -> `[batch, horizon, variates]`.
    ///
    /// The forecast for a lookback does not depend on what else is in its batch, to the last bit.
    ///
    /// # Errors
    /// [`Error::NotFitted`] before `fit` or `load` where there is
    /// something to learn; [`Error::Shape`] if the lookback is too short.
    fn predict(&self, lookback: &Lookback) -> Result<Array3<f32>>;

    /// Writes what `fit` learnt into the folder `dir`, which exists.
    ///
    /// # Errors
    /// If there is nothing learnt to write yet, or it cannot be written.
    fn save(&self, dir: &Path) -> Result<()>;

    /// Takes up again what `save` wrote.
    ///
    /// # Errors
    /// If `dir` does not hold what this forecaster, with this shape, would have written.
    fn load(&mut self, dir: &Path) -> Result<()>;
}

/// What a model is built for; its hyper-parameters come separately, from [`Params`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildContext {
    /// The sizes of each window.
    pub shape: WindowShape,
    /// Steps in the season of the data, 1 where there is none.
    pub season: usize,
    /// All that is drawn at random follows from this.
    pub seed: u64,
    /// Where to compute. Not a part of what is saved: a model can be used elsewhere.
    #[serde(skip)]
    pub device: Device,
}

impl BuildContext {
    /// For data of this shape, without a season, with seed 2021, on the CPU.
    pub fn new(shape: WindowShape) -> Self {
        Self { shape, season: 1, seed: 2021, device: Device::Cpu }
    }
}

/// Where a model computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    #[default]
    Cpu,
    /// The first CUDA device; for what is trained by descent, in a build with the feature `cuda`. Its
    /// sums have an order of their own, so that bits are not those of the CPU.
    Cuda,
}

/// What is said where CUDA is asked of a build without it.
pub(crate) const NO_CUDA: &str = "this build has no CUDA; build with --features cuda where nvcc is installed";

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        })
    }
}

impl std::str::FromStr for Device {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let all = [Self::Cpu, Self::Cuda];
        let names: Vec<String> = all.iter().map(Self::to_string).collect();
        match all.into_iter().find(|device| device.to_string() == name) {
            Some(Self::Cuda) if !cfg!(feature = "cuda") => Err(Error::other(NO_CUDA)),
            Some(device) => Ok(device),
            None => Err(Error::unknown("device", name, names.iter().map(String::as_str))),
        }
    }
}

/// How far fitting has come.
#[derive(Clone, Copy, Debug)]
pub struct FitProgress {
    /// Units of work done.
    pub done: usize,
    /// Units of work in all.
    pub total: usize,
    /// What is counted: "step", "horizon step".
    pub unit: &'static str,
    /// The training loss of the last unit, where there is one.
    pub loss: Option<f64>,
}

/// One epoch of training by descent: a point of the training curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochReport {
    /// From 1.
    pub epoch: usize,
    /// Mean of the losses of all batches, each before its update.
    pub train_loss: f64,
    /// The loss of every validation window, after the epoch.
    pub valid_loss: f64,
    /// Of the last step.
    pub learning_rate: f64,
    pub seconds: f64,
}

/// Hears how fitting goes and may end it. `()` hears nothing.
pub trait FitObserver {
    /// Called after each unit of work; `Break` ends the fit with
    /// [`Error::Interrupted`].
    fn progress(&mut self, progress: FitProgress) -> ControlFlow<()>;

    /// Called after each epoch, by what is trained in epochs; `Break` ends the fit as above.
    fn epoch(&mut self, _report: &EpochReport) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    /// Where a long fit leaves how far it has come, and goes on from what is there; `None`: nowhere.
    fn checkpoint(&self) -> Option<Checkpoint> {
        None
    }

    /// Called once, before all else, by a fit that goes on from a checkpoint: the epochs it has behind it.
    fn resumed(&mut self, _curve: &[EpochReport]) {}

    /// Called with what went wrong and ends nothing, such as a checkpoint that could not be written.
    fn warn(&mut self, _text: &str) {}
}

/// A place for how far a fit has come. A fit that goes on from there gives the same bits as one that was never
/// interrupted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// A folder for this fit alone; made when it is needed. Whoever gives it removes it in the end.
    pub folder: PathBuf,
    /// After each epoch the state is written, once the fit has taken this long.
    pub after: Duration,
    /// Which program the state is of, and which inputs where the folder does not tell; another's is not gone on from.
    pub of: String,
}

impl FitObserver for () {
    fn progress(&mut self, _: FitProgress) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// A closure is an observer.
impl<F: FnMut(FitProgress) -> ControlFlow<()>> FitObserver for F {
    fn progress(&mut self, progress: FitProgress) -> ControlFlow<()> {
        self(progress)
    }
}
