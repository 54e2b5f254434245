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
use crate::models::neural::pass::{Sink, add_to};

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
    /// Of what follows from `input`.
    pub fn of(input: &Tensor) -> Self {
        Self { steps: vec![], known: HashSet::from([input.id()]) }
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

    /// `output` as the result of one operation on `input` on candle's tape; gradients of other variables are left
    /// with `sink`.
    ///
    /// # Errors
    /// If `output` came out of an operation that is not recorded.
    pub fn close(self, input: &Tensor, output: Tensor, sink: Sink) -> Result<Tensor> {
        if !output.track_op() {
            return Ok(output);
        }
        if !self.known.contains(&output.id()) {
            bail!("the last of the operations that are done together is not one of them");
        }
        let op = Together { steps: Mutex::new(self.steps), input: input.id(), output, sink };
        if input.track_op() {
            return input.apply_op1(op);
        }
        // What wants no gradient is replaced by something that puts the operation on the tape.
        Var::from_vec(vec![0f32], 1, &Device::Cpu)?.apply_op1(op)
    }
}

struct Together {
    steps: Mutex<Vec<Step>>,
    input: TensorId,
    output: Tensor,
    sink: Sink,
}

impl CustomOp1 for Together {
    fn name(&self) -> &'static str {
        "together"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        let values = tape::Values::of(&self.output).slice()?.to_vec();
        tape::result(values, self.output.shape())
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let mut steps = std::mem::take(&mut *self.steps.lock().expect("no thread panics holding it"));
        let mut gradients = HashMap::from([(self.output.id(), gradient.clone())]);
        while let Some(Step { inputs, operation, output }) = steps.pop() {
            let Some(gradient) = gradients.remove(&output.id()) else { continue };
            let back = operation.backward(&inputs, &output, &gradient)?;
            for (input, back) in inputs.iter().zip(back) {
                back.map_or(Ok(()), |back| add_to(&mut gradients, input.id(), back))?;
            }
        }
        let of_input = gradients.remove(&self.input);
        self.sink.lock().leave(gradients)?;
        Ok(of_input)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            linear::linear,
            norm::add_norm,
            per_variate::PerVariate,
            tests::{affine, random, values, weights},
        },
        *,
    };
    use crate::models::neural::{pass::Pass, weights::Init};

    #[test]
    fn operations_that_are_one_on_the_tape_have_the_gradients_of_each() {
        let weights = weights();
        let (map, affine) = (weights.linear("map", 6, 6).unwrap(), affine(&weights.at("norm"), 6));
        let of = |name| weights.trained(name, &[4], Init::Normal(1.0)).unwrap();
        let scales = PerVariate { scale: of("scale"), shift: of("shift") };
        let (x, y) = (random(&[2, 4, 6], 1), random(&[2, 4, 6], 2));
        let run = |together: bool, on_tape: bool| {
            let sink = Sink::default();
            let pass = Pass::training(sink.clone(), 7, 0);
            let x = if on_tape { x.as_tensor().clone() } else { x.as_detached_tensor() };
            let operations = || -> Result<Tensor> {
                // Used twice, and a weight whose gradient goes over the tape.
                let z = linear(&x, std::slice::from_ref(&map), &pass)?;
                let z = add_norm(&z, &linear(&z, std::slice::from_ref(&map), &pass)?, &affine, None, &pass)?;
                add_norm(&scales.undo(&scales.apply(&z, &pass)?, &pass)?, &y, &affine, None, &pass)
            };
            let out = if together { pass.together(&x, operations) } else { operations() }.unwrap();
            let store = (&out * random(out.dims(), 9).as_tensor()).unwrap().backward().unwrap();
            let mut sink = sink.lock();
            let left = sink.take_left();
            let all = weights.all().into_iter().map(|(name, weight)| {
                let own = sink.get(&weight).map(<[f32]>::to_vec);
                let over_tape = || store.get(weight.tensor()).or(left.get(&weight.tensor().id())).map(values);
                (name, own.or_else(over_tape))
            });
            let of_y = store.get(&y).or(left.get(&y.id())).map(values);
            let inputs = [store.get(&x).map(values), of_y];
            (values(&out), all.collect::<Vec<_>>(), inputs)
        };
        for on_tape in [true, false] {
            let (one, each) = (run(true, on_tape), run(false, on_tape));
            assert!(each.1.iter().all(|(_, gradient)| gradient.is_some()));
            assert_eq!((each.2[0].is_some(), each.2[1].is_some()), (on_tape, true));
            assert_eq!(one, each);
        }
    }

    #[test]
    fn no_gradient_is_lost_between_operations_that_are_one_on_the_tape() {
        let weights = weights();
        let map = weights.linear("map", 6, 6).unwrap();
        let x = random(&[2, 6], 1);
        let pass = Pass::training(Sink::default(), 7, 0);
        let apply = |x: &Tensor| linear(x, std::slice::from_ref(&map), &pass);
        let before = apply(&x).unwrap();
        let one = |operations: &dyn Fn() -> Result<Tensor>| pass.together(&x, operations).map(|_| ());
        assert!(one(&|| apply(&apply(&x)?)).is_ok());
        // An operation of candle's own in the middle or at the end, and something from before.
        assert!(one(&|| apply(&apply(&x)?.sqr()?)).is_err());
        assert!(one(&|| apply(&x)?.sqr()).is_err());
        assert!(one(&|| apply(&before)).is_err());
        // What failed leaves nothing behind.
        assert!(one(&|| apply(&x)).is_ok());
    }
}
