//! Weights between the code of the papers and this crate: a state dict that a reference saved becomes a
//! forecaster, and the weights of a forecaster become such a state dict.
//!
//! Names and shapes have to be those of the network, one for one. What a reference keeps and a network here
//! does not is taken by its exact name ([`Kept`]), never by a pattern:
//!
//! | model | left out on import, not written on export |
//! |---|---|
//! | `linear`, `nlinear`, `dlinear`, `itransformer`, `olinear`, `olinear-c` | nothing; a moving average has no tensors |
//! | `autoformer`, `informer` | `enc_embedding.position_embedding.pe`, `dec_embedding.position_embedding.pe` |
//! | `informer` | `encoder.conv_layers.N.norm.num_batches_tracked`, for each N that distils |
//! | `gpht` | `encoders.N.patch_embedding.position_embedding.pe`, for each stage N |
//!
//! The copies of OLinear's `encoder.…` below `ortho_trans.1.…` have to be copies, and are written again. Its
//! bases `q_mat` and `q_out_mat`, and OLinear-C's `mixing`, are in no state dict ([`Beside`]).

mod fitting;
mod matrix;
mod pickle;
mod state_dict;
mod torch_file;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use candle_core::{Device, Tensor, safetensors};

use self::fitting::{Fitting, limited};
pub use self::{
    fitting::Kept,
    matrix::{Beside, Rule, read_npy},
    state_dict::{Inferred, Shapes, StateDict},
};
use super::{
    Network, Neural, NeuralParams, State, WEIGHTS_FILE, autoformer::Autoformer, gpht::Gpht, informer::Informer,
    itransformer::ITransformer, linear, olinear, tensor_error,
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
        neural.network.calibrate(train, None)?;
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

#[cfg(test)]
mod tests;
