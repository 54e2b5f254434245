//! One pass through a network: whether it is for training, where gradients go, which mask each dropout
//! has.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

use candle_core::{CustomOp1, CustomOp2, CustomOp3, Result, Tensor, TensorId, Var};

use super::{
    kernels::{
        dropout::Dropout,
        product::{Threads, Write},
        together::{Operation, Record},
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
    /// The operations that are one on candle's tape, while they are applied.
    record: RefCell<Option<Record>>,
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
        Self::new(None)
    }

    /// A part of a training step, of the windows from `first` on.
    pub fn training(sink: Sink, key: u64, first: usize) -> Self {
        Self::new(Some(Training { sink, key, first }))
    }

    fn new(training: Option<Training>) -> Self {
        Self {
            training,
            operations: Cell::new(0),
            derived: None,
            plain: false,
            threads: Threads::One,
            record: RefCell::default(),
        }
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

    /// What the operation makes of `x`.
    ///
    /// # Errors
    /// If it fails.
    pub fn apply1(&self, x: &Tensor, op: impl CustomOp1 + Send + Sync + 'static) -> Result<Tensor> {
        match (&self.training, &mut *self.record.borrow_mut()) {
            (None, _) => x.apply_op1_no_bwd(&op),
            (Some(_), None) => x.apply_op1(op),
            (Some(_), Some(record)) => record.apply(&[x], Operation::One(Box::new(op))),
        }
    }

    /// What the operation makes of two tensors.
    ///
    /// # Errors
    /// If it fails.
    pub fn apply2(&self, x: &Tensor, y: &Tensor, op: impl CustomOp2 + Send + Sync + 'static) -> Result<Tensor> {
        match (&self.training, &mut *self.record.borrow_mut()) {
            (None, _) => x.apply_op2_no_bwd(y, &op),
            (Some(_), None) => x.apply_op2(y, op),
            (Some(_), Some(record)) => record.apply(&[x, y], Operation::Two(Box::new(op))),
        }
    }

    /// What the operation makes of three tensors.
    ///
    /// # Errors
    /// If it fails.
    pub fn apply3(
        &self,
        x: &Tensor,
        y: &Tensor,
        z: &Tensor,
        op: impl CustomOp3 + Send + Sync + 'static,
    ) -> Result<Tensor> {
        match (&self.training, &mut *self.record.borrow_mut()) {
            (None, _) => x.apply_op3_no_bwd(y, z, &op),
            (Some(_), None) => x.apply_op3(y, z, op),
            (Some(_), Some(record)) => record.apply(&[x, y, z], Operation::Three(Box::new(op))),
        }
    }

    /// Does `operations` to `input` as one operation on candle's tape: they may be none but the fused ones, on no
    /// tensor from before but `input`, weights, and what is derived of weights.
    ///
    /// # Errors
    /// If one of them fails, or is none of those.
    pub fn together(&self, input: &Tensor, operations: impl FnOnce() -> Result<Tensor>) -> Result<Tensor> {
        let fuses = self.fuses(input) && self.record.borrow().is_none();
        let Some(training) = self.training.as_ref().filter(|_| fuses) else { return operations() };
        self.record.replace(Some(Record::of(input)));
        let output = operations();
        let record = self.record.take().expect("it was put there above");
        record.close(input, output?, training.sink.clone())
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
    /// Of variables, from operations that were done together; not yet added to the others.
    left: HashMap<TensorId, Tensor>,
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
        self.left.clear();
        self.parts.iter_mut().chain(&mut self.derived).for_each(|part| part.written = false);
    }

    /// Leaves the gradients of variables that [`Self::take_left`] is to give.
    ///
    /// # Errors
    /// If one was left before and they cannot be added.
    pub fn leave(&mut self, gradients: HashMap<TensorId, Tensor>) -> Result<()> {
        gradients.into_iter().try_for_each(|(variable, gradient)| add_to(&mut self.left, variable, gradient))
    }

    /// What was left so.
    pub fn take_left(&mut self) -> HashMap<TensorId, Tensor> {
        std::mem::take(&mut self.left)
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

/// Adds `gradient` to that of tensor `id`; the first one is its gradient.
///
/// # Errors
/// If they cannot be added.
pub fn add_to(gradients: &mut HashMap<TensorId, Tensor>, id: TensorId, gradient: Tensor) -> Result<()> {
    let sum = match gradients.remove(&id) {
        Some(sum) => (sum + gradient)?,
        None => gradient,
    };
    gradients.insert(id, sum);
    Ok(())
}
