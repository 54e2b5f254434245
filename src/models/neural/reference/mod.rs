//! Weights between the code of the papers and this crate: a state dict that a reference saved becomes a
//! forecaster, and the weights of a forecaster become such a state dict.
//!
//! Names and shapes have to be those of the network, one for one. What a reference keeps and a network here
//! does not is taken by its exact name ([`Kept`]), never by a pattern.

mod pickle;
mod state_dict;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use candle_core::{DType, Device, Tensor, safetensors};
use ndarray::Array2;

pub use self::state_dict::{Inferred, Shapes, StateDict};
use super::{
    Network, Neural, NeuralParams, State, WEIGHTS_FILE, Weights, autoformer::Autoformer, gpht::Gpht,
    informer::Informer, itransformer::ITransformer, layers::sinusoids, linear, olinear, tensor_error,
};
use crate::{
    Error, Result,
    forecaster::{BuildContext, Forecaster, Params},
    windows::{WindowShape, Windows},
};

/// How the state dict of a reference differs from the weights of a network here.
#[derive(Clone, Debug, Default)]
pub struct Conventions {
    /// What the reference keeps and the network does not, by exact name.
    pub kept: Vec<(String, Kept)>,
    /// What the network keeps and the reference's state dict does not.
    pub beside: &'static [Beside],
    /// A beginning of names here, and what the reference writes for it.
    pub renamed: Option<(&'static str, &'static str)>,
    /// A beginning of names, and that of the copies which the reference keeps of them.
    pub twice: Option<(&'static str, &'static str)>,
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

/// A matrix that follows from the training rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beside {
    pub name: &'static str,
    pub rule: Rule,
}

/// What such a matrix has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Its rows are of length 1, and at right angles.
    Orthogonal,
    /// Each row sums to 1.
    RowsSumToOne,
}

/// What a state dict became.
pub struct Imported {
    pub forecaster: Box<dyn Forecaster>,
    /// The names of tensors that were left out, as the network has no use for them.
    pub left_out: Vec<String>,
}

/// What an exported state dict holds.
pub struct Exported {
    pub tensors: BTreeMap<String, Tensor>,
    /// What the reference's state dict does not hold, by name.
    pub beside: Vec<(&'static str, Tensor)>,
    /// The names of tensors that the reference has and that are not written.
    pub left_out: Vec<String>,
}

/// From the training rows, or from files: what no state dict holds.
#[derive(Default)]
pub struct Sources<'a> {
    pub train: Option<&'a Windows<'a>>,
    pub given: BTreeMap<&'static str, Tensor>,
}

/// The code of a paper, as far as its checkpoints go.
pub struct Reference {
    pub model: &'static str,
    infer: fn(&StateDict) -> Result<Inferred>,
    import: fn(&StateDict, &Params, &BuildContext, &Sources<'_>) -> Result<Imported>,
    conventions: fn(&Params) -> Result<Conventions>,
}

/// One for each network.
pub const REFERENCES: &[Reference] = &[
    Reference::new::<linear::Linear>(),
    Reference::new::<linear::NLinear>(),
    Reference::new::<linear::DLinear>(),
    Reference::new::<Autoformer>(),
    Reference::new::<Informer>(),
    Reference::new::<ITransformer>(),
    Reference::new::<Gpht>(),
    Reference::new::<olinear::OLinear>(),
    Reference::new::<olinear::OLinearC>(),
];

impl Reference {
    const fn new<N: Network>() -> Self {
        Self {
            model: N::NAME,
            infer: infer::<N>,
            import: |dict, params, context, sources| {
                let params: NeuralParams<N::Params> = params.read(N::NAME)?;
                let (neural, left_out) = import::<N>(dict, params, context, sources)?;
                Ok(Imported { forecaster: Box::new(neural), left_out })
            },
            conventions: |params| {
                let params: NeuralParams<N::Params> = params.read(N::NAME)?;
                Ok(N::conventions(&params.network))
            },
        }
    }

    /// That of the network `model`.
    ///
    /// # Errors
    /// If there is no such network.
    pub fn of(model: &str) -> Result<&'static Self> {
        let known = || REFERENCES.iter().map(|reference| reference.model);
        let found = REFERENCES.iter().find(|reference| reference.model == model);
        found.ok_or_else(|| Error::unknown("model with checkpoints", model, known()))
    }

    /// What the shapes of `dict` say.
    ///
    /// # Errors
    /// If a tensor that sizes are read off is not there: then all names that do not fit are told.
    pub fn infer(&self, dict: &StateDict) -> Result<Inferred> {
        (self.infer)(dict)
    }

    /// The forecaster that `dict` holds the weights of.
    ///
    /// # Errors
    /// If a tensor is missing, not known or of another shape, all of which are named; or if `sources` lack
    /// what the state dict does not hold.
    pub fn import(
        &self,
        dict: &StateDict,
        params: &Params,
        context: &BuildContext,
        sources: &Sources<'_>,
    ) -> Result<Imported> {
        (self.import)(dict, params, context, sources)
    }

    /// The matrices that no state dict of this model holds.
    ///
    /// # Errors
    /// If the params are not the model's.
    pub fn beside(&self, params: &Params) -> Result<&'static [Beside]> {
        Ok((self.conventions)(params)?.beside)
    }

    /// The weights in the folder `dir`, which [`Forecaster::save`] wrote, under the reference's names.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn export(&self, dir: &Path, params: &Params) -> Result<Exported> {
        let conventions = (self.conventions)(params)?;
        let path = dir.join(WEIGHTS_FILE);
        let bytes = std::fs::read(&path).map_err(Error::io("read", &path))?;
        let loaded = safetensors::load_buffer(&bytes, &Device::Cpu).map_err(|error| Error::file(&path, error))?;
        let mut loaded: BTreeMap<String, Tensor> = loaded.into_iter().collect();
        let take = |beside: &Beside| Some((beside.name, loaded.remove(beside.name)?));
        let beside = conventions.beside.iter().filter_map(take).collect();
        let mut tensors = BTreeMap::new();
        for (name, tensor) in loaded {
            if let Some((ours, theirs)) = conventions.twice
                && let Some(rest) = name.strip_prefix(ours)
            {
                tensors.insert(format!("{theirs}{rest}"), tensor.clone());
            }
            let renamed = conventions.renamed.and_then(|(ours, theirs)| Some((theirs, name.strip_prefix(ours)?)));
            let name = renamed.map_or(name.clone(), |(theirs, rest)| format!("{theirs}{rest}"));
            tensors.insert(name, tensor);
        }
        let left_out = conventions.kept.into_iter().map(|(name, _)| name).collect();
        Ok(Exported { tensors, beside, left_out })
    }
}

/// The bytes of a file of safetensors.
///
/// # Errors
/// If the tensors cannot be written.
pub fn to_safetensors(tensors: &BTreeMap<String, Tensor>) -> Result<Vec<u8>> {
    ::safetensors::serialize(tensors, None).map_err(|error| Error::other(error.to_string()))
}

/// Numbers beyond those of the checkpoint that a network of its sizes may have before it is not built: room
/// for bases, and for what a checkpoint lacks and is to be told.
const ROOM: usize = 1 << 24;
const TIMES_MISSING: usize = 4;

fn infer<N: Network>(dict: &StateDict) -> Result<Inferred> {
    let mut shapes = Shapes::new(dict, N::ALIASES);
    let inferred = N::infer(&mut shapes);
    let missed = shapes.missed();
    if missed.is_empty() {
        return Ok(inferred);
    }
    // Names do not depend on sizes, so any will do with which the network can be built: one head, and a
    // lookback that most tokens divide.
    const LOOKBACK: usize = 10_080;
    let shape = WindowShape {
        lookback: inferred.lookback.unwrap_or(LOOKBACK),
        horizon: inferred.horizon.unwrap_or(1),
        variates: inferred.variates.unwrap_or(1),
        time_features: inferred.time_features.unwrap_or(0),
    };
    let params = inferred.as_params();
    let one_head = Inferred::default().with("heads", 1).as_params().overlaid(&params);
    let params = [one_head, params].iter().find_map(|params| params.read(N::NAME).ok());
    let params: NeuralParams<N::Params> = params.unwrap_or_default();
    let plan = limited(dict);
    // As far as it can be built, its names are known.
    let _ = N::build(&params.network, shape, &plan);
    let fitting = Fitting::of::<N>(dict, &plan, &params.network, &missed);
    Err(fitting.fault::<N>(dict).unwrap_or_else(|| Error::file(dict.path(), "sizes cannot be read off it")))
}

/// Weights that are only to be compared with `dict`: sizes of a hostile file may make a network that fits no
/// memory.
fn limited(dict: &StateDict) -> Weights {
    Weights::new(0, Device::Cpu).at_most(dict.count().saturating_mul(TIMES_MISSING).saturating_add(ROOM))
}

fn import<N: Network>(
    dict: &StateDict,
    params: NeuralParams<N::Params>,
    context: &BuildContext,
    sources: &Sources<'_>,
) -> Result<(Neural<N>, Vec<String>)> {
    infer::<N>(dict)?;
    let plan = limited(dict);
    N::build(&params.network, context.shape, &plan)?;
    let mut fitting = Fitting::of::<N>(dict, &plan, &params.network, &BTreeSet::new());
    if let Some(fault) = fitting.fault::<N>(dict) {
        return Err(fault);
    }
    let conventions = N::conventions(&params.network);
    let mut neural = Neural::<N>::new(params, context)?;
    add_beside(&mut neural, &conventions, sources, &mut fitting.tensors)?;
    neural.weights.assign(&fitting.tensors, &[])?;
    neural.ready()?;
    neural.state = State::Loaded;
    Ok((neural, fitting.left_out))
}

/// Computes, or takes from files, what the state dict does not hold.
fn add_beside<N: Network>(
    neural: &mut Neural<N>,
    conventions: &Conventions,
    sources: &Sources<'_>,
    tensors: &mut BTreeMap<String, Tensor>,
) -> Result<()> {
    if let (Some(train), false) = (sources.train, conventions.beside.is_empty()) {
        neural.network.calibrate(train)?;
    }
    let own: BTreeMap<_, _> = neural.weights.buffers().into_iter().collect();
    for Beside { name, rule } in conventions.beside {
        let Some(buffer) = own.get(*name) else { continue };
        let tensor = match (sources.given.get(name), sources.train) {
            (Some(given), _) => rule.hold(name, given, buffer.dims())?,
            (None, Some(_)) => buffer.tensor().copy().map_err(tensor_error)?,
            (None, None) => {
                return Err(Error::other(format!("'{name}' is in no checkpoint: it follows from the training rows")));
            }
        };
        tensors.insert((*name).to_string(), tensor);
    }
    Ok(())
}

impl Rule {
    /// The matrix, with as many axes as the network keeps it with.
    fn hold(self, name: &str, given: &Tensor, dims: &[usize]) -> Result<Tensor> {
        let matrix = &dims[dims.len() - 2..];
        let found = given.dims();
        if found != matrix && found != dims {
            return Err(Error::Shape(format!("'{name}' is {found:?}, but the checkpoint needs {matrix:?}")));
        }
        let flat = given.flatten_all().and_then(|flat| flat.to_dtype(DType::F64)?.to_vec1::<f64>());
        let values = Array2::from_shape_vec((matrix[0], matrix[1]), flat.map_err(tensor_error)?)
            .map_err(|error| Error::Shape(error.to_string()))?;
        // f32 files of the authors are orthogonal to 1e-6.
        const TOLERANCE: f64 = 1e-3;
        let (apart, what) = match self {
            Self::Orthogonal => {
                let apart = values.dot(&values.t()) - Array2::<f64>::eye(matrix[0]);
                (apart.iter().fold(0.0, |most, apart| furthest(most, *apart)), "orthogonal")
            }
            Self::RowsSumToOne => {
                let sums = values.rows().into_iter().map(|row| row.sum() - 1.0);
                (sums.fold(0.0, furthest), "a mixture: its rows do not sum to 1")
            }
        };
        match apart < TOLERANCE {
            true => given.to_dtype(DType::F32).and_then(|tensor| tensor.reshape(dims)).map_err(tensor_error),
            false => Err(Error::other(format!("'{name}' is not {what}"))),
        }
    }
}

/// The larger of two distances; a NaN is as far off as can be.
fn furthest(most: f64, apart: f64) -> f64 {
    if apart.is_nan() { f64::INFINITY } else { most.max(apart.abs()) }
}

/// A state dict held against the weights of a network.
#[derive(Default)]
struct Fitting {
    faults: Vec<String>,
    /// By our names.
    tensors: BTreeMap<String, Tensor>,
    left_out: Vec<String>,
}

impl Fitting {
    fn of<N: Network>(dict: &StateDict, weights: &Weights, params: &N::Params, missed: &BTreeSet<String>) -> Self {
        let mut fitting = Self::default();
        fitting.fit(dict, weights, &N::conventions(params), N::ALIASES, missed);
        fitting
    }

    /// All faults as one error.
    fn fault<N: Network>(&self, dict: &StateDict) -> Option<Error> {
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

/// A matrix that NumPy wrote.
///
/// # Errors
/// If it is no such file, or not one matrix of numbers.
pub fn read_npy(path: &Path) -> Result<Tensor> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    let refused = |what: &str| Error::file(path, format!("not a matrix in a .npy file: {what}"));
    // candle reserves memory for the shape that the file claims to have.
    let header = bytes.get(..bytes.len().min(1 << 12)).unwrap_or_default();
    let text = String::from_utf8_lossy(header);
    let shape = text.split_once("'shape':").and_then(|(_, rest)| rest.split_once('(')?.1.split_once(')'));
    let shape = shape.map(|(shape, _)| shape).ok_or_else(|| refused("it says no shape"))?;
    let axes = shape.split(',').filter(|axis| !axis.trim().is_empty());
    let sizes = axes.map(|axis| axis.trim().parse::<usize>().ok()).collect::<Option<Vec<_>>>();
    let count = sizes.and_then(|sizes| sizes.iter().try_fold(1usize, |count, size| count.checked_mul(*size)));
    match count {
        Some(count) if count <= bytes.len() => {}
        _ => return Err(refused("its shape is larger than the file")),
    }
    Tensor::read_npy(path).map_err(|error| refused(&error.to_string()))
}
