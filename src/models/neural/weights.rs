//! The weights of a network: named as in the reference's state dict, drawn from a seed, on disk as
//! safetensors.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use candle_core::{DType, Device, Tensor, Var, safetensors};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use super::{
    kernels::{batch_norm::BatchNorm, linear::Map, norm::Affine, panels::Panels},
    tensor_error,
};
use crate::{Error, Result};

/// Numbers of a model at most: 64 GiB of them.
const MOST: usize = 1 << 34;

/// One weight, or something kept beside the weights; cheap to clone.
#[derive(Clone)]
pub struct Weight {
    var: Var,
    /// Its place among the gradients, in the order in which the network made its weights.
    slot: usize,
    /// For inference, a matrix `[outputs, inputs]` as products with few rows read it. None while the
    /// weight changes.
    panels: Arc<RwLock<Option<Panels>>>,
    /// Whether training leaves it as it is.
    frozen: Arc<AtomicBool>,
}

impl Weight {
    /// One that is computed, not trained: it has no slot of its own and must not be on a tape.
    ///
    /// # Errors
    /// If the tensor cannot be made.
    pub fn fixed(values: Vec<f32>, dims: &[usize], device: &Device) -> Result<Self> {
        Ok(Self::new(Var::from_vec(values, dims, device).map_err(tensor_error)?, usize::MAX))
    }

    fn new(var: Var, slot: usize) -> Self {
        Self { var, slot, panels: Arc::default(), frozen: Arc::default() }
    }

    /// The matrix as inference reads it, if it was made ready.
    pub fn panels(&self) -> RwLockReadGuard<'_, Option<Panels>> {
        self.panels.read().expect("no thread panics holding it")
    }

    /// Lays a matrix out for inference, or, before it changes, drops what was laid out.
    ///
    /// # Errors
    /// If its values cannot be read.
    pub fn lay_out(&self, for_inference: bool) -> Result<()> {
        let panels = match self.dims() {
            [outputs, inputs, ..] if for_inference && self.device().is_cpu() && outputs * inputs == self.len() => {
                Some(Panels::of(&self.values()?, *inputs))
            }
            _ => None,
        };
        *self.panels.write().expect("no thread panics holding it") = panels;
        Ok(())
    }

    pub fn device(&self) -> Device {
        self.var.device().clone()
    }

    /// Its values, on the tape.
    pub fn tensor(&self) -> &Tensor {
        self.var.as_tensor()
    }

    /// Whether training changes it, so that it needs a gradient.
    pub fn is_trained(&self) -> bool {
        !self.frozen.load(Ordering::Relaxed)
    }

    pub fn slot(&self) -> usize {
        self.slot
    }

    pub fn dims(&self) -> &[usize] {
        self.var.dims()
    }

    /// How many numbers it is.
    #[expect(clippy::len_without_is_empty, reason = "a weight is at least one number")]
    pub fn len(&self) -> usize {
        self.var.elem_count()
    }

    /// Its values.
    pub fn values(&self) -> Result<Vec<f32>> {
        self.var.flatten_all().and_then(|flat| flat.to_vec1()).map_err(tensor_error)
    }

    /// Gives it other values, as many as it has.
    pub fn set(&self, values: &[f32]) -> Result<()> {
        self.take(&Tensor::from_slice(values, self.var.shape(), self.var.device()).map_err(tensor_error)?)
    }

    /// Takes the values of a tensor of the same shape, on the same device.
    pub fn take(&self, tensor: &Tensor) -> Result<()> {
        self.lay_out(false)?;
        self.var.set(tensor).map_err(tensor_error)
    }
}

/// How a weight starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Between -bound and bound.
    Uniform(f64),
    /// Around 0, with this deviation.
    Normal(f64),
    /// Ones on the diagonal of the last two axes, and a normal draw added to each element.
    IdentityPlusNormal,
    Constant(f32),
}

impl Init {
    /// PyTorch's default for the weight and the bias of a linear map of `inputs`.
    pub fn of_linear(inputs: usize) -> Self {
        Self::Uniform(1.0 / (inputs as f64).sqrt())
    }

    fn values(self, dims: &[usize], random: &mut ChaCha8Rng) -> Vec<f32> {
        let len = dims.iter().product();
        let width = dims.last().copied().unwrap_or(1);
        let mut normal = || -> f32 { StandardNormal.sample(random) };
        match self {
            Self::Uniform(bound) => (0..len).map(|_| random.random_range(-bound..bound) as f32).collect(),
            Self::Normal(deviation) => (0..len).map(|_| normal() * deviation as f32).collect(),
            Self::IdentityPlusNormal => {
                let diagonal = |index: usize| if index / width % width == index % width { 1.0 } else { 0.0 };
                (0..len).map(|index| diagonal(index) + normal()).collect()
            }
            Self::Constant(value) => vec![value; len],
        }
    }
}

/// The weights of one network, and the names that those made through this handle begin with.
#[derive(Clone)]
pub struct Weights {
    store: Arc<Mutex<Store>>,
    prefix: String,
}

struct Store {
    seed: u64,
    device: Device,
    /// By name, so that sums over all weights have one order.
    trained: BTreeMap<String, Weight>,
    /// Kept with the weights, not trained.
    buffers: BTreeMap<String, Weight>,
    /// How many more numbers may be made.
    left: usize,
}

impl Weights {
    /// None yet; each will be drawn from `seed` and its name, so that one more moves no other.
    pub fn new(seed: u64, device: Device) -> Self {
        let (trained, buffers) = (BTreeMap::new(), BTreeMap::new());
        let store = Store { seed, device, trained, buffers, left: MOST };
        Self { store: Arc::new(Mutex::new(store)), prefix: String::new() }
    }

    /// The same, which refuses to make more than so many numbers: for sizes from a file that nobody vouches
    /// for.
    #[must_use]
    pub fn at_most(self, numbers: usize) -> Self {
        self.lock().left = numbers;
        self
    }

    /// The weights below `name`.
    pub fn at(&self, name: impl std::fmt::Display) -> Self {
        Self { store: Arc::clone(&self.store), prefix: format!("{}{name}.", self.prefix) }
    }

    pub fn device(&self) -> Device {
        self.lock().device.clone()
    }

    /// A weight to be trained.
    pub fn trained(&self, name: &str, dims: &[usize], init: Init) -> Result<Weight> {
        self.make(name, dims, init, |store| &mut store.trained)
    }

    /// Something that is kept with the weights but not trained; `value` at first.
    pub fn buffer(&self, name: &str, dims: &[usize], value: f32) -> Result<Weight> {
        self.make(name, dims, Init::Constant(value), |store| &mut store.buffers)
    }

    /// `name.weight [outputs, inputs]` and `name.bias [outputs]`, as PyTorch starts them.
    pub fn linear(&self, name: impl std::fmt::Display, inputs: usize, outputs: usize) -> Result<Map> {
        self.map(name, &[outputs, inputs], Init::of_linear(inputs))
    }

    /// The same, kept as a convolution of width 1: `name.weight [outputs, inputs, 1]`.
    pub fn pointwise(&self, name: impl std::fmt::Display, inputs: usize, outputs: usize) -> Result<Map> {
        self.map(name, &[outputs, inputs, 1], Init::of_linear(inputs))
    }

    fn map(&self, name: impl std::fmt::Display, dims: &[usize], init: Init) -> Result<Map> {
        let at = self.at(name);
        Ok(Map { weight: at.trained("weight", dims, init)?, bias: Some(at.trained("bias", &dims[..1], init)?) })
    }

    /// Batch normalisation as PyTorch starts it: scale and shift, and `name.running_mean` and
    /// `name.running_var`.
    pub fn batch_norm(&self, name: impl std::fmt::Display, width: usize) -> Result<BatchNorm> {
        let at = self.at(&name);
        Ok(BatchNorm {
            affine: self.affine(&name, width)?,
            mean: at.buffer("running_mean", &[width], 0.0)?,
            variance: at.buffer("running_var", &[width], 1.0)?,
        })
    }

    /// `name.weight` and `name.bias` of a layer normalisation: ones and zeros.
    pub fn affine(&self, name: impl std::fmt::Display, width: usize) -> Result<Affine> {
        let at = self.at(name);
        Ok(Affine {
            weight: at.trained("weight", &[width], Init::Constant(1.0))?,
            bias: at.trained("bias", &[width], Init::Constant(0.0))?,
        })
    }

    fn make(
        &self,
        name: &str,
        dims: &[usize],
        init: Init,
        place: impl Fn(&mut Store) -> &mut BTreeMap<String, Weight>,
    ) -> Result<Weight> {
        let name = format!("{}{name}", self.prefix);
        let mut store = self.lock();
        let count = dims.iter().try_fold(1usize, |count, dim| count.checked_mul(*dim));
        store.left = count.and_then(|count| store.left.checked_sub(count)).ok_or_else(|| {
            Error::Shape(format!(
                "with weight '{name}' {dims:?} the model would be far larger than the checkpoint, or \
                 than can be trained"
            ))
        })?;
        let mut random = ChaCha8Rng::seed_from_u64(store.seed ^ hash(&name));
        let values = init.values(dims, &mut random);
        let var = Var::from_vec(values, dims, &store.device).map_err(tensor_error)?;
        let weight = Weight::new(var, store.trained.len());
        let before = place(&mut store).insert(name, weight.clone());
        assert!(before.is_none(), "a network makes each of its weights once");
        Ok(weight)
    }

    /// All that are trained, by name.
    pub fn all(&self) -> Vec<(String, Weight)> {
        self.lock().trained.iter().map(|(name, weight)| (name.clone(), weight.clone())).collect()
    }

    /// Those that training may change.
    pub fn changing(&self) -> Vec<(String, Weight)> {
        self.all().into_iter().filter(|(_, weight)| weight.is_trained()).collect()
    }

    /// What is kept but not trained, by name.
    pub fn buffers(&self) -> Vec<(String, Weight)> {
        self.lock().buffers.iter().map(|(name, weight)| (name.clone(), weight.clone())).collect()
    }

    /// How many numbers are trained.
    pub fn count(&self) -> usize {
        self.lock().trained.values().map(Weight::len).sum()
    }

    /// Only the weights whose name has one of `parts` in it will be trained; with none given, all.
    ///
    /// # Errors
    /// If one of them is in no name.
    pub fn train_only(&self, parts: &[String]) -> Result<()> {
        let store = self.lock();
        if let Some(part) = parts.iter().find(|part| !store.trained.keys().any(|name| name.contains(*part))) {
            let names: BTreeSet<&str> = store.trained.keys().flat_map(|name| name.split('.')).collect();
            return Err(Error::unknown("weight", part, names));
        }
        for (name, weight) in &store.trained {
            let trained = parts.is_empty() || parts.iter().any(|part| name.contains(part));
            weight.frozen.store(!trained, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Lays all matrices out for inference, or, before training changes them, drops what was laid out.
    ///
    /// # Errors
    /// If the values of one cannot be read.
    pub fn lay_out(&self, for_inference: bool) -> Result<()> {
        self.lock().trained.values().try_for_each(|weight| weight.lay_out(for_inference))
    }

    /// Writes weights and buffers.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let store = self.lock();
        let all = store.trained.iter().chain(&store.buffers);
        let tensors: BTreeMap<&String, Tensor> = all.map(|(name, weight)| (name, weight.tensor().clone())).collect();
        let bytes = ::safetensors::serialize(&tensors, None)
            .map_err(|error| Error::file(path, format!("the weights cannot be written: {error}")))?;
        std::fs::write(path, bytes).map_err(Error::io("write", path))
    }

    /// Takes the values that `save` wrote; nothing is changed when they do not fit.
    ///
    /// # Errors
    /// If the file cannot be read, or a weight is missing, unknown or of another shape.
    pub fn load(&self, path: &Path, aliases: &[(&str, &str)]) -> Result<()> {
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        let tensors = safetensors::load_buffer(&bytes, &self.device())
            .map_err(|error| Error::file(path, format!("not a file of weights: {error}")))?;
        self.assign(&tensors.into_iter().collect(), aliases).map_err(|error| Error::file(path, error))
    }

    /// Takes these values, which have to be all that there are. A name that is not known is looked up
    /// again with the first of an alias replaced by the second.
    ///
    /// # Errors
    /// If a weight is missing, unknown or of another shape; nothing is changed then.
    pub fn assign(&self, tensors: &BTreeMap<String, Tensor>, aliases: &[(&str, &str)]) -> Result<()> {
        let store = self.lock();
        let known = |name: &str| store.trained.contains_key(name) || store.buffers.contains_key(name);
        let all: Vec<_> = store.trained.iter().chain(&store.buffers).collect();
        let mut named = BTreeMap::new();
        for (name, tensor) in tensors {
            let mut names = aliases.iter().map(|(theirs, ours)| name.replacen(theirs, ours, 1));
            let ours = if known(name) { Some(name.clone()) } else { names.find(|name| known(name)) };
            let unknown = || Error::unknown("weight", name, all.iter().map(|(name, _)| name.as_str()));
            named.insert(ours.ok_or_else(unknown)?, tensor);
        }
        let mut pairs = Vec::with_capacity(all.len());
        for (name, weight) in all {
            let tensor = named.get(name).ok_or_else(|| Error::other(format!("weight '{name}' is missing")))?;
            if tensor.dims() != weight.dims() {
                let (found, expected) = (tensor.dims(), weight.dims());
                return Err(Error::Shape(format!("weight '{name}' is {found:?}, but the model has {expected:?}")));
            }
            let tensor = tensor.to_dtype(DType::F32).and_then(|tensor| tensor.to_device(&store.device));
            pairs.push((weight, tensor.map_err(tensor_error)?));
        }
        for (weight, tensor) in pairs {
            weight.take(&tensor)?;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Store> {
        self.store.lock().expect("no thread panics holding the weights")
    }
}

/// FNV-1a: the same for a name today and tomorrow, unlike the standard library's hashes.
pub fn hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(seed: u64) -> Weights {
        Weights::new(seed, Device::Cpu)
    }

    #[test]
    fn a_weight_follows_from_the_seed_and_its_name_alone() -> Result<()> {
        let (one, other) = (weights(1), weights(1));
        let first = one.linear("a", 5, 3)?;
        other.linear("b", 7, 2)?;
        let second = other.linear("a", 5, 3)?;
        assert_eq!(first.weight.values()?, second.weight.values()?);
        assert_ne!(first.weight.values()?, weights(2).linear("a", 5, 3)?.weight.values()?);
        assert_ne!(first.weight.values()?, one.linear("c", 5, 3)?.weight.values()?);
        Ok(())
    }

    #[test]
    fn linear_maps_start_as_in_pytorch() -> Result<()> {
        let map = weights(3).linear("a", 100, 50)?;
        for values in [map.weight.values()?, map.bias.expect("it has one").values()?] {
            let largest = values.iter().fold(0f32, |largest, value| largest.max(value.abs()));
            assert!((0.09..=0.1).contains(&largest), "{largest}");
        }
        Ok(())
    }

    #[test]
    fn a_part_of_no_name_is_refused_when_only_some_are_trained() -> Result<()> {
        let weights = weights(5);
        let (first, second) = (weights.linear("first", 2, 2)?, weights.linear("second", 2, 2)?);
        let error = weights.train_only(&["second".into(), "frist".into()]).unwrap_err().to_string();
        assert_eq!(error, "no weight named 'frist'; did you mean 'first'?");
        assert!(first.weight.is_trained() && second.weight.is_trained());
        weights.train_only(&["second".into()])?;
        assert!(!first.weight.is_trained() && second.weight.is_trained());
        weights.train_only(&[])?;
        assert!(first.weight.is_trained());
        Ok(())
    }

    #[test]
    fn what_does_not_fit_is_named_and_changes_nothing() -> Result<()> {
        let weights = weights(4);
        let map = weights.linear("a", 2, 2)?;
        let before = map.weight.values()?;
        let zeros = |dims: &[usize]| Tensor::zeros(dims, DType::F32, &Device::Cpu).unwrap();
        let mut tensors = BTreeMap::from([("a.weight".to_string(), zeros(&[2, 2]))]);
        assert_eq!(weights.assign(&tensors, &[]).unwrap_err().to_string(), "weight 'a.bias' is missing");
        tensors.insert("a.bias".into(), zeros(&[3]));
        let error = weights.assign(&tensors, &[]).unwrap_err().to_string();
        assert_eq!(error, "weight 'a.bias' is [3], but the model has [2]");
        tensors.insert("a.bias".into(), zeros(&[2]));
        tensors.insert("a.wieght".into(), zeros(&[2]));
        let error = weights.assign(&tensors, &[]).unwrap_err().to_string();
        assert!(error.contains("did you mean 'a.weight'"), "{error}");
        assert_eq!(map.weight.values()?, before);
        Ok(())
    }
}
