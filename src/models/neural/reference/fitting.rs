//! A state dict against a network: every tensor that is missing, not known or of another shape.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{DType, Device, Tensor};

use super::{Conventions, StateDict, matrix::furthest};
use crate::{
    Error,
    models::neural::{Network, Weights, layers::sinusoids},
};

/// Numbers beyond those of the checkpoint that a network of its sizes may have before it is not built: room
/// for bases, and for what a checkpoint lacks and is to be told.
const ROOM: usize = 1 << 24;
const TIMES_MISSING: usize = 4;

/// Weights that are only to be compared with `dict`: sizes of a hostile file may make a network that fits no
/// memory.
pub fn limited(dict: &StateDict) -> Weights {
    Weights::new(0, Device::Cpu).at_most(dict.count().saturating_mul(TIMES_MISSING).saturating_add(ROOM))
}

/// A tensor of a reference that no network here has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Batches that a normalisation has seen: a single number that nothing depends on.
    Counter,
    /// A table of positions, `[1, steps, width]`, that is not looked at.
    Unused { width: usize },
    /// The same, looked at: it must hold what the formula gives, as that is computed here.
    Positions { width: usize },
}

/// A state dict held against the weights of a network.
#[derive(Default)]
pub struct Fitting {
    faults: Vec<String>,
    /// By our names.
    pub tensors: BTreeMap<String, Tensor>,
    pub left_out: Vec<String>,
}

impl Fitting {
    pub fn of<N: Network>(dict: &StateDict, weights: &Weights, params: &N::Params, missed: &BTreeSet<String>) -> Self {
        let mut fitting = Self::default();
        fitting.fit(dict, weights, &N::conventions(params), N::ALIASES, missed);
        fitting
    }

    /// All faults as one error.
    pub fn fault<N: Network>(&self, dict: &StateDict) -> Option<Error> {
        let faults = || self.faults.join("\n  ");
        let error =
            || Error::file(dict.path(), format!("no checkpoint of {} with these params:\n  {}", N::NAME, faults()));
        (!self.faults.is_empty()).then(error)
    }

    fn fit(
        &mut self,
        dict: &StateDict,
        weights: &Weights,
        conventions: &Conventions,
        aliases: &[(&str, &str)],
        missed: &BTreeSet<String>,
    ) {
        let all: BTreeMap<_, _> = weights.all().into_iter().chain(weights.buffers()).collect();
        let beside = |name: &str| conventions.beside.iter().any(|beside| beside.name == name);
        let known = |name: &str| all.contains_key(name) && !beside(name);
        for (name, tensor) in dict.tensors() {
            let dims = tensor.dims();
            if let Some((_, kept)) = conventions.kept.iter().find(|(kept, _)| kept == name) {
                match kept.fault(tensor) {
                    Some(fault) => self.faults.push(format!("'{name}' {fault}")),
                    None => self.left_out.push(name.clone()),
                }
                continue;
            }
            let theirs = aliases.iter().map(|(theirs, ours)| name.replacen(theirs, ours, 1));
            let Some(ours) = std::iter::once(name.clone()).chain(theirs).find(|name| known(name)) else {
                self.faults.push(format!("'{name}' {dims:?} is not known"));
                continue;
            };
            let expected = all[&ours].dims();
            // Shapes follow from sizes, and a size that was not there makes all of them wrong.
            if dims != expected && missed.is_empty() {
                self.faults.push(format!("'{name}' is {dims:?}, expected {expected:?}"));
            } else if !tensor.dtype().is_float() {
                self.faults.push(format!("'{name}' is of whole numbers ({:?})", tensor.dtype()));
            } else if !is_finite(tensor) {
                self.faults.push(format!("'{name}' holds a number that is not finite"));
            } else if self.tensors.get(&ours).is_some_and(|copy| !same(copy, tensor)) {
                self.faults.push(format!("'{name}' is not the copy of '{ours}' that it is in the reference"));
            }
            self.tensors.entry(ours).or_insert_with(|| tensor.clone());
        }
        for (name, weight) in all.iter().filter(|(name, _)| known(name) && !self.tensors.contains_key(*name)) {
            let dims = if missed.is_empty() { format!(" {:?}", weight.dims()) } else { String::new() };
            self.faults.push(format!("'{name}'{dims} is missing"));
        }
        for name in missed.iter().filter(|name| !all.contains_key(*name) || self.tensors.contains_key(*name)) {
            self.faults.push(format!("'{name}' is missing, or has too few axes to read sizes off"));
        }
        self.faults.sort();
    }
}

/// Whether all of it are finite numbers, as f32 too.
fn is_finite(tensor: &Tensor) -> bool {
    let values = tensor.flatten_all().and_then(|flat| flat.to_dtype(DType::F32)?.to_vec1::<f32>());
    values.is_ok_and(|values| values.iter().all(|value| value.is_finite()))
}

fn same(one: &Tensor, other: &Tensor) -> bool {
    let values = |tensor: &Tensor| tensor.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>();
    match (values(one), values(other)) {
        (Ok(one), Ok(other)) => {
            one.len() == other.len() && one.iter().zip(&other).all(|(one, other)| one.to_bits() == other.to_bits())
        }
        _ => false,
    }
}

impl Kept {
    /// What is wrong with a tensor for this.
    fn fault(self, tensor: &Tensor) -> Option<String> {
        let dims = tensor.dims();
        match self {
            Self::Counter => (!dims.is_empty()).then(|| format!("is {dims:?}, expected a single number")),
            Self::Unused { width } | Self::Positions { width } => match *dims {
                [1, steps, found] if found == width => {
                    let apart = || self == Self::Positions { width } && !is_formula(tensor, steps, width);
                    apart().then(|| "is not the table of sines and cosines that is computed here".into())
                }
                _ => Some(format!("is {dims:?}, expected [1, steps, {width}]")),
            },
        }
    }
}

/// Whether a table of positions is that of the formula: f32 angles at step 5000 are this far off.
fn is_formula(tensor: &Tensor, steps: usize, width: usize) -> bool {
    const TOLERANCE: f64 = 5e-3;
    let values = |tensor: &Tensor| tensor.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>();
    let expected = sinusoids(steps, width, &Device::Cpu).and_then(|table| values(&table));
    match (values(tensor), expected) {
        (Ok(found), Ok(expected)) => {
            let apart = found.iter().zip(&expected).map(|(found, expected)| f64::from(found - expected));
            apart.fold(0.0, furthest) < TOLERANCE
        }
        _ => false,
    }
}
