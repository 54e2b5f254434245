//! Forecasters trained by gradient descent.
//!
//! A [`Network`] is what a paper describes: weights and a forward pass. [`Neural`] makes a forecaster of
//! any of them: one training loop, one way to save, load and predict. candle keeps the tape; what is
//! hot runs in `kernels/`.

pub mod autoformer;
mod awake;
mod checkpoint;
pub mod golden;
pub mod gpht;
pub mod informer;
mod input;
pub mod itransformer;
pub mod kernels;
mod layers;
pub mod linear;
pub mod olinear;
mod optimizer;
mod pass;
pub mod reference;
mod trainer;
mod training;
mod weights;

use std::path::Path;

use candle_core::Tensor;
use ndarray::{Array3, Axis};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use self::{
    input::Input,
    kernels::{activation::Activation, auto_correlation::Lags, loss::Loss},
    optimizer::Optimizer,
    pass::{Pass, Sink},
    reference::{Conventions, Inferred, Shapes},
    trainer::{Trainer, gradients},
    training::{Schedule, Training},
    weights::{Init, Weight, Weights},
};
use crate::{
    Error, Result,
    forecaster::{BuildContext, Device, FitObserver, Forecaster, NO_CUDA},
    windows::{Lookback, WindowShape, Windows},
};

/// A network that the trainer can train. Its weights come from `Weights`, its numbers from `Params`.
pub trait Network: Send + Sync + Sized + 'static {
    /// The name in the registry.
    const NAME: &'static str;
    /// What it is, in one line.
    const ABOUT: &'static str;
    type Params: Clone + Default + Serialize + DeserializeOwned + Send + Sync + 'static;
    /// Names that a checkpoint may have for weights, each with ours.
    const ALIASES: &'static [(&'static str, &'static str)] = &[];

    /// What the shapes of a checkpoint of the reference say of the network.
    fn infer(shapes: &mut Shapes<'_>) -> Inferred;

    /// How the checkpoints of the reference differ from the weights here.
    fn conventions(_params: &Self::Params) -> Conventions {
        Conventions::default()
    }

    /// # Errors
    /// If the params do not go with one another or with the shape.
    fn build(params: &Self::Params, shape: WindowShape, weights: &Weights) -> Result<Self>;

    /// The forecast `[batch, variates, horizon]`, of `input.horizon` steps.
    ///
    /// In inference the forecast for a window must not depend on the others in its batch, to the last
    /// bit.
    ///
    /// # Errors
    /// If a tensor has another shape than the network was built for.
    fn forward(&self, input: &Input, pass: &Pass) -> candle_core::Result<Tensor>;

    /// Sets what is computed from the training windows and not learnt by descent. Where a fit has validation
    /// windows, they tell how far it may reach.
    ///
    /// # Errors
    /// If it cannot be computed from these windows.
    fn calibrate(&mut self, _train: &Windows<'_>, _valid: Option<&Windows<'_>>) -> Result<()> {
        Ok(())
    }

    /// The horizon of the windows it learns from, where that is not the one it is asked for: a network that
    /// forecasts by going on from its own forecast learns single steps of that.
    fn training_horizon(&self) -> Option<usize> {
        None
    }

    /// Rows that one window of `variates` puts into the products: they say how much of a batch keeps a
    /// thread busy.
    fn rows(&self, variates: usize) -> usize {
        variates
    }

    /// Whether in training something is computed over all windows of a batch together, so that it
    /// cannot be cut into parts.
    fn whole_batch(&self) -> bool {
        false
    }

    /// What follows from the weights alone, for a step on `windows` windows: computed once for all of
    /// them, and given to each of their forward passes.
    ///
    /// # Errors
    /// As for [`forward`](Self::forward).
    fn derive(&self, _windows: usize, _pass: &Pass) -> candle_core::Result<Vec<Tensor>> {
        Ok(vec![])
    }

    /// Prepares inference with the weights as they are now: what is the same for every window is
    /// computed here, once.
    ///
    /// # Errors
    /// If the weights cannot be read.
    fn fold(&mut self) -> Result<()> {
        Ok(())
    }

    /// What training makes small: by default the error of the forecast. `count` is the number of values in
    /// the targets of the whole batch, of which these windows may be a part; a network that learns from
    /// more values than those multiplies it.
    ///
    /// # Errors
    /// As for [`forward`](Self::forward).
    fn loss(
        &self,
        input: &Input,
        target: &Tensor,
        loss: Loss,
        count: usize,
        pass: &Pass,
    ) -> candle_core::Result<Tensor> {
        loss.on_tape(&self.forward(input, pass)?, target, count, pass)
    }
}

/// `[network]` and `[training]` of a preset.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NeuralParams<P: Default> {
    pub network: P,
    pub training: Training,
}

/// The forecaster that a network makes.
pub struct Neural<N: Network> {
    params: NeuralParams<N::Params>,
    context: BuildContext,
    network: N,
    weights: Weights,
    state: State,
    /// The epoch that the validation windows chose, of a fit that went on from no file.
    best_epoch: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The weights are as they were drawn.
    Drawn,
    /// They come from a file; training goes on from them.
    Loaded,
    Fitted,
}

const WEIGHTS_FILE: &str = "weights.safetensors";

/// How many windows go through a network at once: few enough for what it keeps of them to stay in the
/// cache, enough rows (`rows` a window) to keep its products busy. Other devices take all they get.
fn windows_at_once(rows: usize, device: &candle_core::Device) -> usize {
    const ROWS: usize = 512;
    if device.is_cpu() { (ROWS / rows).max(1) } else { usize::MAX }
}

/// Multiplications of a forecast, a row through every weight, that are worth waking all threads.
const WORTH_ALL_THREADS: usize = 1 << 24;

/// Threads that stay awake for a forecast at most: its operations have a few panels each to share.
const AWAKE: usize = 8;

impl<N: Network> Neural<N> {
    /// # Errors
    /// If the params do not go with one another or with the shape of the windows.
    pub fn new(params: NeuralParams<N::Params>, context: &BuildContext) -> Result<Self> {
        params.training.check(N::NAME)?;
        let (network, weights) = draw(&params, context)?;
        Ok(Self { params, context: *context, network, weights, state: State::Drawn, best_epoch: None })
    }

    /// The weights, by the names of the reference's state dict.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Takes the weights as they were drawn for fitted ones; for measurements and tests, where any
    /// weights will do.
    ///
    /// # Errors
    /// If what is computed from the training windows cannot be.
    pub fn take_as_fitted(&mut self, train: &Windows<'_>) -> Result<()> {
        self.network.calibrate(train, None)?;
        self.ready()?;
        self.state = State::Loaded;
        Ok(())
    }

    /// The network itself.
    pub fn network(&self) -> &N {
        &self.network
    }

    /// `windows` with the horizon that the network learns from.
    fn learnt_from<'a>(&self, windows: &Windows<'a>) -> Result<Windows<'a>> {
        self.network.training_horizon().map_or_else(|| Ok(windows.clone()), |horizon| windows.with_horizon(horizon))
    }

    /// Prepares inference with the weights as they are.
    fn ready(&mut self) -> Result<()> {
        self.network.fold()?;
        self.weights.lay_out(true)
    }

    fn forecast(&self, lookback: &Lookback) -> candle_core::Result<Array3<f32>> {
        let WindowShape { horizon, variates, .. } = self.context.shape;
        let batch = lookback.values.len_of(Axis(0));
        let device = self.weights.device();
        let mut forecast = Array3::zeros((batch, horizon, variates));
        let rows = self.network.rows(variates);
        let at_once = windows_at_once(rows, &device).min(batch.max(1));
        // Whoever scores many windows asks for them from all threads; a single forecast has them to itself.
        let alone = batch <= at_once && rayon::current_thread_index().is_none();
        let alone = alone && batch * rows * self.weights.count() >= WORTH_ALL_THREADS;
        let pass = || if alone { Pass::inference().on_all_threads() } else { Pass::inference() };
        let input = Input::of_lookback(lookback, self.context.shape, &device)?;
        for first in (0..batch).step_by(at_once) {
            let part = input.narrow(first, at_once.min(batch - first))?;
            let forward = || self.network.forward(&part, &pass())?.flatten_all()?.to_vec1::<f32>();
            // From one of the threads that share the work there is nothing to wake, and nothing to wait for.
            let values = if alone { awake::all_awake(AWAKE, forward)? } else { forward()? };
            for (index, window) in values.chunks_exact(variates * horizon).enumerate() {
                let mut slot = forecast.index_axis_mut(Axis(0), first + index);
                for (variate, steps) in window.chunks_exact(horizon).enumerate() {
                    slot.column_mut(variate).iter_mut().zip(steps).for_each(|(slot, step)| *slot = *step);
                }
            }
        }
        Ok(forecast)
    }
}

fn draw<N: Network>(params: &NeuralParams<N::Params>, context: &BuildContext) -> Result<(N, Weights)> {
    let weights = Weights::new(context.seed, device(context.device)?);
    let network = N::build(&params.network, context.shape, &weights)?;
    let only = weights.train_only(&params.training.only);
    only.map_err(|error| Error::params(N::NAME, format!("training.only: {error}")))?;
    Ok((network, weights))
}

fn device(device: Device) -> Result<candle_core::Device> {
    match device {
        Device::Cpu => Ok(candle_core::Device::Cpu),
        Device::Cuda if cfg!(feature = "cuda") => candle_core::Device::new_cuda(0)
            .map_err(|error| Error::other(format!("the first CUDA device cannot be used: {error}"))),
        Device::Cuda => Err(Error::other(NO_CUDA)),
    }
}

impl<N: Network> Forecaster for Neural<N> {
    fn fit(&mut self, train: &Windows<'_>, valid: &Windows<'_>, observer: &mut dyn FitObserver) -> Result<()> {
        if self.state == State::Fitted {
            (self.network, self.weights) = draw(&self.params, &self.context)?;
        }
        let (train, valid) = (&self.learnt_from(train)?, &self.learnt_from(valid)?);
        let anew = self.state != State::Loaded;
        if anew {
            self.network.calibrate(train, Some(valid))?;
        }
        let (plan, seed) = (&self.params.training, self.context.seed);
        let best = trainer::train(&mut self.network, &self.weights, plan, seed, train, valid, observer)?;
        self.ready()?;
        self.state = State::Fitted;
        self.best_epoch = anew.then_some(best);
        Ok(())
    }

    /// From the first weights on, for as many epochs as the validation windows chose.
    fn refit(&mut self, all: &Windows<'_>, observer: &mut dyn FitObserver) -> Result<bool> {
        let Some(epochs) = self.best_epoch else { return Ok(false) };
        let all = &self.learnt_from(all)?;
        let (mut network, weights) = draw::<N>(&self.params, &self.context)?;
        network.calibrate(all, None)?;
        let (plan, seed) = (&self.params.training, self.context.seed);
        trainer::train_for(&mut network, &weights, plan, seed, all, epochs, observer)?;
        (self.network, self.weights) = (network, weights);
        self.ready()?;
        Ok(true)
    }

    fn predict(&self, lookback: &Lookback) -> Result<Array3<f32>> {
        if self.state == State::Drawn {
            return Err(Error::NotFitted(N::NAME));
        }
        let shape = self.context.shape;
        let (_, rows, variates) = lookback.values.dim();
        if rows < shape.lookback || variates != shape.variates {
            return Err(Error::Shape(format!(
                "a lookback of {rows} rows and {variates} variates, where {} needs {} and {}",
                N::NAME,
                shape.lookback,
                shape.variates
            )));
        }
        self.forecast(lookback).map_err(tensor_error)
    }

    fn save(&self, dir: &Path) -> Result<()> {
        match self.state {
            State::Drawn => Err(Error::NotFitted(N::NAME)),
            _ => self.weights.save(&dir.join(WEIGHTS_FILE)),
        }
    }

    fn load(&mut self, dir: &Path) -> Result<()> {
        self.weights.load(&dir.join(WEIGHTS_FILE), N::ALIASES)?;
        self.ready()?;
        (self.state, self.best_epoch) = (State::Loaded, None);
        Ok(())
    }
}

/// A fault of the tensor library, in our words: its backtrace is of no use to a reader.
fn tensor_error(error: candle_core::Error) -> Error {
    Error::other(format!("tensor operation: {error}"))
}

/// Refuses an average over so many steps that edges are all it is of.
fn check_average(model: &str, steps: usize, shape: WindowShape) -> Result<()> {
    let most = 2 * (shape.lookback + shape.horizon) + 1;
    match steps <= most {
        true => Ok(()),
        false => Err(Error::params(model, format!("moving_average must be at most {most} here, not {steps}"))),
    }
}

fn check_dropout(model: &str, dropout: f64) -> Result<()> {
    match (0.0..1.0).contains(&dropout) {
        true => Ok(()),
        false => Err(Error::params(model, format!("dropout must be at least 0 and below 1, not {dropout}"))),
    }
}
