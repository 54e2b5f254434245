//! What makes an update of gradients.

use std::sync::{Mutex, MutexGuard};

use candle_core::{Tensor, backprop::GradStore};
use rayon::prelude::*;

use super::{
    Sink, Training, Weight, Weights,
    kernels::adam::{Moments, Rule, Update},
    tensor_error,
};
use crate::Result;

/// Adam or AdamW, and the moments of all weights.
pub struct Optimizer {
    weights: Vec<(Weight, Mutex<Moments>)>,
    /// The same on another device: mean and square of each weight's gradient.
    on_device: Vec<[Tensor; 2]>,
    weight_decay: f64,
    clip: f64,
    steps: usize,
}

impl Optimizer {
    pub fn new(weights: &Weights, plan: &Training) -> Self {
        let weights = weights.changing().into_iter();
        let weights = weights.map(|(_, weight)| (weight.clone(), Mutex::new(Moments::zeros(weight.len())))).collect();
        Self { weights, on_device: vec![], weight_decay: plan.weight_decay, clip: plan.clip, steps: 0 }
    }

    /// How many numbers each weight has.
    pub(super) fn lengths(&self) -> Vec<usize> {
        self.weights.iter().map(|(weight, _)| weight.len()).collect()
    }

    /// Of each weight.
    pub(super) fn moments(&self) -> Vec<MutexGuard<'_, Moments>> {
        self.weights.iter().map(|(_, moments)| lock(moments)).collect()
    }

    /// Goes on after so many `steps`, which came to these `moments`.
    pub(super) fn go_on(&mut self, moments: &[Moments], steps: usize) {
        self.moments().iter_mut().zip(moments).for_each(|(own, reached)| own.clone_from(reached));
        self.steps = steps;
    }

    /// One update by the sum of the gradients in `sinks`, in their order. A weight without a gradient
    /// stays as it is.
    ///
    /// # Errors
    /// If the weights are not where they can be written to.
    pub fn step(&mut self, sinks: &[Sink], rate: f64) -> Result<()> {
        self.steps += 1;
        let sinks: Vec<_> = sinks.iter().map(Sink::lock).collect();
        let parts: Vec<Vec<&[f32]>> =
            self.weights.iter().map(|(weight, _)| sinks.iter().filter_map(|sink| sink.get(weight)).collect()).collect();
        let factor = self.factor(|| Ok(parts.iter().map(|parts| squares(parts)).sum()))?;
        let rule = Rule::new(rate, self.weight_decay, self.steps);
        let weights = self.weights.par_iter().zip(&parts).filter(|(_, parts)| !parts.is_empty());
        let updates = weights.map(|((weight, moments), gradients)| {
            weight.tensor().inplace_op1(&Update { gradients, factor: factor as f32, moments, rule })
        });
        updates.collect::<candle_core::Result<()>>().map_err(tensor_error)?;
        sinks.iter().flat_map(|sink| sink.noted()).try_for_each(|(buffer, values)| buffer.set(values))
    }

    /// What gradients are multiplied by so that their norm is not above the largest that is allowed;
    /// `squares` gives the square of the norm.
    fn factor(&self, squares: impl FnOnce() -> candle_core::Result<f64>) -> Result<f64> {
        match self.clip {
            0.0 => Ok(1.0),
            clip => Ok((clip / (squares().map_err(tensor_error)?.sqrt() + 1e-6)).min(1.0)),
        }
    }

    /// The same update in candle's own operations, by gradients that came over the tape.
    pub(super) fn plain_step(&mut self, gradients: &GradStore, rate: f64) -> Result<()> {
        self.steps += 1;
        let tensors = || self.weights.iter().map(|(weight, _)| weight.tensor());
        if self.on_device.is_empty() {
            let zeros = |tensor: &Tensor| Ok([tensor.zeros_like()?.detach(), tensor.zeros_like()?.detach()]);
            self.on_device = tensors().map(zeros).collect::<candle_core::Result<_>>().map_err(tensor_error)?;
        }
        let square = |tensor: &Tensor| tensor.sqr()?.sum_all()?.to_scalar::<f32>().map(f64::from);
        let factor = self.factor(|| tensors().filter_map(|tensor| gradients.get(tensor)).map(square).sum())?;
        let Rule { beta, epsilon, keep, step, root } = Rule::new(rate, self.weight_decay, self.steps);
        for ((weight, _), moments) in self.weights.iter().zip(&mut self.on_device) {
            let Some(gradient) = gradients.get(weight.tensor()) else { continue };
            let update = || -> candle_core::Result<(Tensor, [Tensor; 2])> {
                let mix =
                    |old: &Tensor, new: &Tensor, beta: f32| (old * f64::from(beta))? + (new * f64::from(1.0 - beta))?;
                let gradient = (gradient * factor)?;
                let mean = mix(&moments[0], &gradient, beta.0)?;
                let square = mix(&moments[1], &gradient.sqr()?, beta.1)?;
                let size = ((square.sqrt()? / f64::from(root))? + f64::from(epsilon))?;
                let change = (mean.div(&size)? * f64::from(step))?;
                Ok((((weight.tensor().detach() * f64::from(keep))? - change)?, [mean, square]))
            };
            let (values, new) = update().map_err(tensor_error)?;
            weight.take(&values)?;
            *moments = new;
        }
        Ok(())
    }
}

/// The sum of squares of what the parts add up to.
fn squares(parts: &[&[f32]]) -> f64 {
    let len = parts.first().map_or(0, |part| part.len());
    (0..len).map(|index| f64::from(parts.iter().map(|part| part[index]).sum::<f32>()).powi(2)).sum()
}

fn lock(moments: &Mutex<Moments>) -> MutexGuard<'_, Moments> {
    moments.lock().expect("no thread panics holding it")
}
