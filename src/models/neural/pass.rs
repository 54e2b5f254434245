//! One pass through a network: whether it is for training, where gradients go, which mask each dropout
//! has.

use std::{
    cell::Cell,
    sync::{Arc, Mutex, MutexGuard},
};

use candle_core::{Result, Tensor, Var};

use super::{
    kernels::{
        dropout::Dropout,
        product::{Threads, Write},
    },
    weights::Weight,
};

/// What a forward pass has to know besides its input.
///
/// A network calls the same operations in the same order each time; the order numbers them, and
/// dropout masks are keyed by seed, step and number.
pub struct Pass {
    training: Option<Training>,
    operations: Cell<u32>,
    derived: Option<Vec<Tensor>>,
    plain: bool,
    threads: Threads,
}

struct Training {
    sink: Sink,
    /// Follows from the seed of the run and the number of the step.
    key: u64,
    /// Windows of the batch that come before those of this shard.
    first: usize,
}

impl Pass {
    /// A forecast: no dropout, nothing kept for gradients.
    pub fn inference() -> Self {
        Self { training: None, operations: Cell::new(0), derived: None, plain: false, threads: Threads::One }
    }

    /// A part of a training step, of the windows from `first` on.
    pub fn training(sink: Sink, key: u64, first: usize) -> Self {
        let training = Some(Training { sink, key, first });
        Self { training, operations: Cell::new(0), derived: None, plain: false, threads: Threads::One }
    }

    /// The same in candle's own operations, as on devices that the fused ones are not written for: all
    /// gradients then go over the tape, and none to the sink.
    pub fn plain(self) -> Self {
        Self { plain: true, ..self }
    }

    /// The same with all threads at work inside operations, for a pass that nothing else runs beside: no
    /// bit of a forecast changes, and none of training depends on how many threads there are.
    pub fn on_all_threads(self) -> Self {
        Self { threads: Threads::All, ..self }
    }

    /// Who works inside an operation.
    pub fn threads(&self) -> Threads {
        self.threads
    }

    /// Whether operations on `tensor` are the fused ones.
    pub fn fuses(&self, tensor: &Tensor) -> bool {
        !self.plain && tensor.device().is_cpu()
    }

    /// The same with what the network derives from its weights, computed once for all windows of a
    /// step.
    pub fn with_derived(self, derived: Vec<Tensor>) -> Self {
        Self { derived: Some(derived), ..self }
    }

    /// What was derived for this pass; none where the network has to do it itself.
    pub fn derived(&self) -> Option<&[Tensor]> {
        self.derived.as_deref()
    }

    pub fn is_training(&self) -> bool {
        self.training.is_some()
    }

    /// Where gradients of weights go, when training.
    pub fn sink(&self) -> Option<Sink> {
        self.training.as_ref().map(|training| training.sink.clone())
    }

    /// A weight as a tensor: on the tape when it is being trained.
    pub fn tensor(&self, weight: &Weight) -> Tensor {
        match self.training {
            Some(_) if weight.is_trained() => weight.tensor().clone(),
            _ => weight.tensor().detach(),
        }
    }

    /// A key for what the next operation draws, the same for all windows of a batch; none in a forecast,
    /// where nothing is drawn.
    pub fn draw(&self) -> Option<u64> {
        let training = self.training.as_ref()?;
        let operation = self.operations.replace(self.operations.get() + 1);
        Some(training.key.wrapping_add(u64::from(operation)))
    }

    /// `x` for an operation that has `weights` of its own: on the tape if one of them is being trained,
    /// even where all that `x` comes from is frozen.
    ///
    /// # Errors
    /// If the tensor cannot be copied.
    pub fn input_of(&self, weights: &[&Weight], x: &Tensor) -> Result<Tensor> {
        let x = x.contiguous()?;
        let needed = self.is_training() && !x.track_op() && weights.iter().any(|weight| weight.is_trained());
        if needed { Ok(Var::from_tensor(&x)?.into_inner()) } else { Ok(x) }
    }

    /// The mask of the next dropout, for a tensor of `per_window` elements a window; none when there is
    /// nothing to drop.
    pub fn dropout(&self, probability: f64, per_window: usize) -> Option<Dropout> {
        let training = self.training.as_ref().filter(|_| probability > 0.0)?;
        Some(Dropout::new(probability, self.draw()?, training.first * per_window))
    }

    /// `x [batch, ..]` with elements dropped, when training.
    ///
    /// # Errors
    /// If the tensor is not contiguous.
    pub fn drop_out(&self, x: Tensor, probability: f64) -> Result<Tensor> {
        match self.dropout(probability, x.elem_count() / x.dim(0)?) {
            Some(dropout) => dropout.apply(&x.contiguous()?, self),
            None => Ok(x),
        }
    }
}

/// Where the gradients of one shard are added up; shared by all operations of its pass.
#[derive(Clone, Default)]
pub struct Sink(Arc<Mutex<Gradients>>);

impl Sink {
    /// For the gradient so far.
    ///
    /// # Panics
    /// If a thread panicked while it wrote.
    pub fn lock(&self) -> MutexGuard<'_, Gradients> {
        self.0.lock().expect("no thread panics while it writes a gradient")
    }
}

/// The gradient of each weight, by its slot.
#[derive(Default)]
pub struct Gradients {
    parts: Vec<Part>,
    /// Of what is derived from weights.
    derived: Vec<Part>,
    /// What is not trained and changes with the step all the same.
    noted: Vec<(Weight, Vec<f32>)>,
}

#[derive(Default)]
struct Part {
    values: Vec<f32>,
    written: bool,
}

impl Part {
    fn at(parts: &mut Vec<Self>, index: usize) -> &mut Self {
        if parts.len() <= index {
            parts.resize_with(index + 1, Self::default);
        }
        &mut parts[index]
    }

    fn slot(&mut self, len: usize) -> (&mut [f32], Write) {
        let write = if self.written { Write::Add } else { Write::Set };
        self.values.resize(len, 0.0);
        self.written = true;
        (&mut self.values, write)
    }

    fn add(&mut self, values: &[f32]) {
        let (into, write) = self.slot(values.len());
        match write {
            Write::Set => into.copy_from_slice(values),
            Write::Add => into.iter_mut().zip(values).for_each(|(into, value)| *into += value),
        }
    }
}

impl Gradients {
    /// All zero again; memory is kept.
    pub fn clear(&mut self) {
        self.noted.clear();
        self.parts.iter_mut().chain(&mut self.derived).for_each(|part| part.written = false);
    }

    /// Leaves the values that something beside the weights takes on if the step is taken.
    pub fn note(&mut self, buffer: &Weight, values: Vec<f32>) {
        self.noted.push((buffer.clone(), values));
    }

    /// What was left so.
    pub fn noted(&self) -> &[(Weight, Vec<f32>)] {
        &self.noted
    }

    /// Where to write the gradient of `weight`, and whether something is there to be added to.
    pub fn of(&mut self, weight: &Weight) -> (&mut [f32], Write) {
        Part::at(&mut self.parts, weight.slot()).slot(weight.len())
    }

    /// Adds `values` to the gradient of `weight`.
    pub fn add(&mut self, weight: &Weight, values: &[f32]) {
        Part::at(&mut self.parts, weight.slot()).add(values);
    }

    /// Adds `values` to the gradient of the tensor number `index` of those that are derived.
    pub fn add_derived(&mut self, index: usize, values: &[f32]) {
        Part::at(&mut self.derived, index).add(values);
    }

    /// The gradient of derived tensor `index`; none where nothing was written.
    pub fn get_derived(&self, index: usize) -> Option<&[f32]> {
        self.derived.get(index).filter(|part| part.written).map(|part| part.values.as_slice())
    }

    /// The gradient of `weight`; none where nothing was written.
    pub fn get(&self, weight: &Weight) -> Option<&[f32]> {
        self.parts.get(weight.slot()).filter(|part| part.written).map(|part| part.values.as_slice())
    }
}
