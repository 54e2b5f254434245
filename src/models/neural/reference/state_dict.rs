//! A state dict from a file, and what can be read off its shapes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    fs,
    path::{Path, PathBuf},
};

use candle_core::{Device, Tensor, safetensors};

use super::torch_file;
use crate::{Error, Result, forecaster::Params};

/// Tensors by name, as a reference's code saved them.
pub struct StateDict {
    path: PathBuf,
    tensors: BTreeMap<String, Tensor>,
}

/// What PyTorch puts before every name when a model on several devices is saved.
const PARALLEL: &str = "module.";

impl StateDict {
    /// Reads a file of `torch.save` or of safetensors; which of them it is, its content says. Nothing in it
    /// is run.
    ///
    /// # Errors
    /// If it cannot be read, is damaged, or holds more or other than named tensors.
    pub fn read(path: &Path) -> Result<Self> {
        Self::read_below(path, None)
    }

    /// The same of a file of `torch.save` that holds the state dict below `key`, beside the state of an optimizer
    /// perhaps.
    ///
    /// # Errors
    /// As for [`read`](Self::read); if there is nothing below `key`.
    pub fn read_below(path: &Path, key: Option<&str>) -> Result<Self> {
        let bytes = fs::read(path).map_err(Error::io("read", path))?;
        let tensors = if bytes.starts_with(torch_file::MAGIC) {
            torch_file::read(&bytes, key).map_err(|error| Error::file(path, error))?
        } else if bytes.starts_with(torch_file::OLD_MAGIC) {
            let remedy = "load it and save it again with PyTorch 1.6 or newer";
            return Err(Error::file(path, format!("a pickle as PyTorch wrote it before 1.6: {remedy}")));
        } else if let Some(key) = key {
            return Err(Error::file(path, format!("not a file of torch.save, so that nothing is below '{key}'")));
        } else {
            let tensors = safetensors::load_buffer(&bytes, &Device::Cpu);
            let refused = |error| format!("neither a file of torch.save nor one of safetensors: {error}");
            tensors.map_err(|error| Error::file(path, refused(error)))?.into_iter().collect()
        };
        Self::of(path, tensors)
    }

    pub(super) fn of(path: &Path, tensors: BTreeMap<String, Tensor>) -> Result<Self> {
        if tensors.is_empty() {
            return Err(Error::file(path, "it holds no tensor"));
        }
        if let Some((name, tensor)) = tensors.iter().find(|(_, tensor)| tensor.elem_count() == 0) {
            return Err(Error::file(path, format!("'{name}' is {:?} and holds no number", tensor.dims())));
        }
        let parallel = tensors.keys().all(|name| name.starts_with(PARALLEL));
        let own = |name: String| if parallel { name[PARALLEL.len()..].to_string() } else { name };
        let tensors = tensors.into_iter().map(|(name, tensor)| (own(name), tensor)).collect();
        Ok(Self { path: path.to_path_buf(), tensors })
    }

    /// Where it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All of its tensors, by name.
    pub fn tensors(&self) -> &BTreeMap<String, Tensor> {
        &self.tensors
    }

    /// How many numbers it holds.
    pub fn count(&self) -> usize {
        self.tensors.values().map(Tensor::elem_count).sum()
    }
}

/// The shapes of a state dict, to read sizes off.
pub struct Shapes<'a> {
    dict: &'a StateDict,
    aliases: &'static [(&'static str, &'static str)],
    missed: BTreeSet<String>,
}

impl<'a> Shapes<'a> {
    pub(super) fn new(dict: &'a StateDict, aliases: &'static [(&'static str, &'static str)]) -> Self {
        Self { dict, aliases, missed: BTreeSet::new() }
    }

    /// Whether there is a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// The size of one axis of a tensor. Where there is none, 1 stands for it, and the name is remembered.
    pub fn size(&mut self, name: &str, axis: usize) -> usize {
        let size = self.find(name).and_then(|tensor| tensor.dims().get(axis).copied());
        size.unwrap_or_else(|| {
            self.missed.insert(name.to_string());
            1
        })
    }

    /// How many there are of `name.0.…`, `name.1.…` and so on.
    pub fn layers(&self, name: &str) -> usize {
        let has = |number: &usize| {
            let start = format!("{name}.{number}.");
            let theirs = self.aliases.iter().map(|(theirs, ours)| start.replacen(ours, theirs, 1));
            theirs.chain([start.clone()]).any(|start| self.dict.tensors.keys().any(|name| name.starts_with(&start)))
        };
        (0..).take_while(has).count()
    }

    /// The names of what was looked for in vain.
    pub(super) fn missed(self) -> BTreeSet<String> {
        self.missed
    }

    fn find(&self, name: &str) -> Option<&'a Tensor> {
        let theirs = self.aliases.iter().map(|(theirs, ours)| name.replacen(ours, theirs, 1));
        std::iter::once(name.to_string()).chain(theirs).find_map(|name| self.dict.tensors.get(&name))
    }
}

/// What the shapes of a state dict say: sizes of a window, and params.
#[derive(Clone, Debug, Default)]
pub struct Inferred {
    pub lookback: Option<usize>,
    pub horizon: Option<usize>,
    pub variates: Option<usize>,
    /// Calendar features of a row; 0 where the network does not look at them.
    pub time_features: Option<usize>,
    /// Assignments such as `network.d_model=16`.
    pub params: Vec<String>,
}

impl Inferred {
    /// The same with a param of the network.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Display) -> Self {
        self.params.push(format!("network.{name}={value}"));
        self
    }

    /// The params that were read off.
    pub fn as_params(&self) -> Params {
        self.params.iter().fold(Params::default(), |params, assignment| params.overlaid(&assigned(assignment)))
    }

    /// As text: `lookback=96`, `network.d_model=16`.
    pub fn all(&self) -> Vec<String> {
        let sizes = [("lookback", self.lookback), ("horizon", self.horizon), ("variates", self.variates)];
        let sizes = sizes.into_iter().filter_map(|(name, size)| Some(format!("{name}={}", size?)));
        sizes.chain(self.params.iter().cloned()).collect()
    }

    /// The first param that `set` has otherwise.
    pub fn contradicted(&self, set: &Params) -> Option<&str> {
        let apart = |assignment: &&String| {
            let own = assigned(assignment);
            set.clone().overlaid(&own) != own.overlaid(set)
        };
        self.params.iter().find(apart).map(String::as_str)
    }
}

fn assigned(assignment: &str) -> Params {
    let mut params = Params::default();
    params.set(assignment).expect("a name and a value make an assignment");
    params
}
