//! Several operations that are one on candle's tape.
//!
//! Candle's tape keeps what every operation made until the backward pass ends, and adds each gradient to a tensor
//! of zeros. Here both go the shorter way: what was made is dropped as soon as nobody needs it, and the first
//! gradient of a tensor is its gradient.

use std::{
    collections::{HashMap, HashSet},
    sync::Mutex,
};

use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, Device, Layout, Result, Shape, Storage, Tensor, TensorId, Var, bail,
};

use super::tape;
use crate::models::neural::pass::Sink;

/// An operation with a gradient.
pub enum Operation {
    One(Box<dyn CustomOp1 + Send + Sync>),
    Two(Box<dyn CustomOp2 + Send + Sync>),
    Three(Box<dyn CustomOp3 + Send + Sync>),
}

impl Operation {
    fn forward(&self, inputs: &[Tensor]) -> Result<(CpuStorage, Shape)> {
        let inputs: Vec<_> = inputs.iter().map(Tensor::storage_and_layout).collect();
        let part = |index: usize| match &*inputs[index].0 {
            Storage::Cpu(storage) => Ok((storage, inputs[index].1)),
            _ => bail!("the tensor is not on the CPU"),
        };
        let one = part(0)?;
        match self {
            Self::One(op) => op.cpu_fwd(one.0, one.1),
            Self::Two(op) => part(1).and_then(|two| op.cpu_fwd(one.0, one.1, two.0, two.1)),
            Self::Three(op) => {
                let (two, three) = (part(1)?, part(2)?);
                op.cpu_fwd(one.0, one.1, two.0, two.1, three.0, three.1)
            }
        }
    }

    fn backward(&self, inputs: &[Tensor], output: &Tensor, gradient: &Tensor) -> Result<[Option<Tensor>; 3]> {
        Ok(match (self, inputs) {
            (Self::One(op), [one]) => [op.bwd(one, output, gradient)?, None, None],
            (Self::Two(op), [one, two]) => {
                let (one, two) = op.bwd(one, two, output, gradient)?;
                [one, two, None]
            }
            (Self::Three(op), [one, two, three]) => op.bwd(one, two, three, output, gradient)?.into(),
            _ => bail!("an operation has as many inputs as it was applied to"),
        })
    }
}

/// What was applied to what, in its order.
#[derive(Default)]
pub struct Record {
    steps: Vec<Step>,
    /// The tensors that gradients are passed on to.
    known: HashSet<TensorId>,
}

struct Step {
    inputs: Vec<Tensor>,
    operation: Operation,
    output: Tensor,
}

impl Record {
    /// Of what follows from `inputs`.
    pub fn of(inputs: &[&Tensor]) -> Self {
        Self { steps: vec![], known: inputs.iter().map(|input| input.id()).collect() }
    }

    /// Applies `operation` to `inputs`.
    ///
    /// # Errors
    /// If it fails, or if an input came out of an operation that is not recorded: its gradient would be lost.
    pub fn apply(&mut self, inputs: &[&Tensor], operation: Operation) -> Result<Tensor> {
        let lost = |input: &&&Tensor| input.track_op() && !input.is_variable() && !self.known.contains(&input.id());
        if let Some(input) = inputs.iter().find(lost) {
            bail!("what {:?} came out of is not part of what is done together", input.shape());
        }
        let inputs: Vec<Tensor> = inputs.iter().copied().cloned().collect();
        let (CpuStorage::F32(values), shape) = operation.forward(&inputs)? else { bail!("numbers are f32") };
        if !inputs.iter().any(Tensor::track_op) {
            return tape::tensor(values, &shape);
        }
        // A variable, so that operations see that it wants a gradient.
        let output = Var::from_vec(values, shape, &Device::Cpu)?.into_inner();
        self.known.insert(output.id());
        self.steps.push(Step { inputs, operation, output: output.clone() });
        Ok(output)
    }

    /// `output` as the result of one operation on `inputs` on candle's tape; gradients of other variables are left
    /// with `sink`.
    ///
    /// # Errors
    /// If `output` came out of an operation that is not recorded.
    pub fn close(self, inputs: &[&Tensor], output: Tensor, sink: Sink) -> Result<Tensor> {
        if !output.track_op() {
            return Ok(output);
        }
        if !self.known.contains(&output.id()) {
            bail!("the last of the operations that are done together is not one of them");
        }
        let ids = inputs.iter().map(|input| input.track_op().then(|| input.id())).collect();
        let op = Together { steps: Mutex::new(self.steps), inputs: ids, output, sink };
        // What wants no gradient is replaced by something that puts the operation on the tape.
        let on_tape = |input: &Tensor| match input.track_op() {
            true => Ok(input.clone()),
            false => Var::from_vec(vec![0f32], 1, &Device::Cpu).map(Var::into_inner),
        };
        match inputs {
            [one] => on_tape(one)?.apply_op1(op),
            [one, two] => on_tape(one)?.apply_op2(&on_tape(two)?, op),
            _ => bail!("operations that are done together start from one tensor or from two"),
        }
    }
}

struct Together {
    steps: Mutex<Vec<Step>>,
    /// Those of the inputs that want a gradient.
    inputs: Vec<Option<TensorId>>,
    output: Tensor,
    sink: Sink,
}

impl Together {
    fn output(&self) -> Result<(CpuStorage, Shape)> {
        let values = tape::Values::of(&self.output).slice()?.to_vec();
        tape::result(values, self.output.shape())
    }

    /// The gradient of each input.
    fn backward(&self, gradient: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let mut steps = std::mem::take(&mut *self.steps.lock().expect("no thread panics holding it"));
        let mut gradients = HashMap::from([(self.output.id(), gradient.clone())]);
        while let Some(Step { inputs, operation, output }) = steps.pop() {
            let Some(gradient) = gradients.remove(&output.id()) else { continue };
            let back = operation.backward(&inputs, &output, &gradient)?;
            for (input, back) in inputs.iter().zip(back) {
                let Some(back) = back else { continue };
                let sum = match gradients.remove(&input.id()) {
                    Some(sum) => (sum + back)?,
                    None => back,
                };
                gradients.insert(input.id(), sum);
            }
        }
        let of_inputs = self.inputs.iter().map(|id| id.and_then(|id| gradients.remove(&id))).collect();
        self.sink.lock().leave(gradients)?;
        Ok(of_inputs)
    }
}

impl CustomOp1 for Together {
    fn name(&self) -> &'static str {
        "together"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.output()
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        Ok(self.backward(gradient)?.pop().flatten())
    }
}

impl CustomOp2 for Together {
    fn name(&self) -> &'static str {
        "together"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.output()
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let mut gradients = self.backward(gradient)?;
        let two = gradients.pop().flatten();
        Ok((gradients.pop().flatten(), two))
    }
}
