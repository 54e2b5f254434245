//! Pretraining: one model learns from every variate of many data sets, and is kept in a folder.
//!
//! A sample is one variate of one window (Liu et al., "Generative Pretrained Hierarchical Transformer",
//! KDD 2024, <https://arxiv.org/abs/2402.16516>, section 3.2), so that sets of different width and step go
//! together. Each set has its own split, and each variate its own scaler.

use std::{
    fs,
    ops::{ControlFlow, Range},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    Event, Machine, Prepared, Software, checkpoint,
    record::write_whole,
    remove_unfinished,
    task::{Fitting, resolved_params},
};
use crate::{
    Error, Result,
    data::Series,
    forecaster::{BuildContext, Device, EpochReport, Params, Registry},
    windows::{Part, WindowShape, Windows},
};

/// The version of the format of [`Pretrained`].
const FORMAT: u32 = 1;
const FILE: &str = "pretrained.toml";

/// What to pretrain.
#[derive(Clone, Debug)]
pub struct PretrainPlan {
    pub model: String,
    /// The preset that params are laid over; `None` is the one with the name of the model.
    pub preset: Option<String>,
    pub params: Params,
    pub lookback: usize,
    /// Steps that are forecast; a model with steps of its own to learn takes those.
    pub horizon: usize,
    pub seed: u64,
    pub device: Device,
    /// A fit that takes longer leaves how far it has come after each epoch, beside the folder it is to be kept in;
    /// the same plan with the same folder goes on from there.
    pub checkpoint_after: Duration,
}

/// What stands beside pretrained weights: all that went in.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pretrained {
    pub format: u32,
    pub model: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    pub lookback: usize,
    pub horizon: usize,
    pub seed: u64,
    pub seconds: f64,
    /// sha256 of what the model wrote.
    pub weights: String,
    pub software: Software,
    pub machine: Machine,
    /// Its params, every default filled in.
    pub params: Params,
    pub datasets: Vec<Source>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub curve: Vec<EpochReport>,
}

/// A data set that was learnt from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    pub name: String,
    pub sha256: String,
    pub variates: usize,
    /// Samples: windows × variates.
    pub samples_train: usize,
    pub samples_valid: usize,
}

/// Fits one model on all variates of `sets` and keeps it in the folder `dir`, which must not be there yet.
///
/// # Errors
/// If the folder is there or cannot be made, no set has a window, the model cannot be built or fitted, or
/// `hear` asks to stop ([`Error::Interrupted`]); the folder is there complete, or not at all. What a long fit had
/// learnt until then lies in a folder of the same name and `.unfinished`.
pub fn pretrain(
    models: &Registry,
    plan: &PretrainPlan,
    sets: &[Prepared],
    dir: &Path,
    hear: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
) -> Result<Pretrained> {
    if dir.exists() {
        return Err(Error::file(dir, "there already; remove it or choose another folder"));
    }
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(Error::io("make the folder", parent))?;
    let unfinished = tempfile::Builder::new().prefix(".longcast-").tempdir_in(parent);
    let unfinished = unfinished.map_err(Error::io("make a folder in", parent))?;

    let shape = WindowShape { lookback: plan.lookback, horizon: plan.horizon, variates: 1, time_features: 0 };
    let (mut channels, mut targets) = (Vec::new(), [Vec::new(), Vec::new()]);
    let mut sources = Vec::new();
    for set in sets {
        let own = set.channels()?;
        let ranges = [Part::Train, Part::Valid]
            .map(|part| own.iter().map(|(_, split)| split.targets(part, plan.lookback)).collect::<Vec<_>>());
        let series: Vec<Series> = own.into_iter().map(|(series, _)| series).collect();
        let samples = |ranges: &[Range<usize>]| Windows::new(&series, ranges, shape).map_or(0, |windows| windows.len());
        sources.push(Source {
            name: set.name().to_string(),
            sha256: set.sha256().to_string(),
            variates: series.len(),
            samples_train: samples(&ranges[0]),
            samples_valid: samples(&ranges[1]),
        });
        channels.extend(series);
        targets.iter_mut().zip(ranges).for_each(|(all, own)| all.extend(own));
    }
    let (preset, params) =
        resolved_params(models, &plan.model, plan.preset.as_deref(), &plan.params, "", plan.horizon)?;
    let context = BuildContext { shape, season: 1, seed: plan.seed, device: plan.device };
    let mut forecaster = models.build(&plan.model, &params, &context)?;
    let train = Windows::new(&channels, &targets[0], shape)?;
    let valid = Windows::new(&channels, &targets[1], shape)?;
    let start = Instant::now();
    let mut checkpoint = checkpoint(&unfinished_of(dir), plan.checkpoint_after);
    let inputs = (&plan.model, &params, shape, plan.seed, &sources);
    checkpoint.of += &serde_json::to_string(&inputs).map_err(|error| Error::other(error.to_string()))?;
    let mut fitting = Fitting::new(hear, Some(checkpoint));
    forecaster.fit(&train, &valid, &mut fitting)?;
    let seconds = start.elapsed().as_secs_f64() + fitting.earlier_seconds();
    let curve = fitting.curve;

    forecaster.save(unfinished.path())?;
    let pretrained = Pretrained {
        format: FORMAT,
        model: plan.model.clone(),
        preset,
        lookback: plan.lookback,
        horizon: plan.horizon,
        seed: plan.seed,
        seconds,
        weights: digest(unfinished.path())?,
        software: Software::this(),
        machine: Machine::this(plan.device),
        params,
        datasets: sources,
        curve,
    };
    let text = toml::to_string(&pretrained).map_err(|error| Error::other(error.to_string()))?;
    write_whole(&unfinished.path().join(FILE), text.as_bytes())?;
    fs::rename(unfinished.keep(), dir).map_err(Error::io("make the folder", dir))?;
    remove_unfinished(&unfinished_of(dir))?;
    Ok(pretrained)
}

/// Where a fit for the folder `dir` leaves how far it has come.
pub fn unfinished_of(dir: &Path) -> PathBuf {
    let mut name = dir.file_name().unwrap_or_default().to_owned();
    name.push(".unfinished");
    dir.with_file_name(name)
}

impl Pretrained {
    /// What the folder `dir` holds, whose weights must be those that were written.
    ///
    /// # Errors
    /// If it is no such folder, or its weights have changed.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE);
        let text = fs::read_to_string(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                Error::file(dir, format!("no pretrained model: it has no {FILE}; make one with `longcast pretrain`"))
            }
            _ => Error::io("read", &path)(error),
        })?;
        let pretrained: Self = toml::from_str(&text).map_err(|error| Error::file(&path, error.message()))?;
        if pretrained.format != FORMAT {
            let message =
                format!("a pretrained model of format {}, not {FORMAT}; pretrain it again", pretrained.format);
            return Err(Error::file(&path, message));
        }
        if digest(dir)? != pretrained.weights {
            return Err(Error::file(dir, format!("its weights are not those that {FILE} tells of; pretrain it again")));
        }
        Ok(pretrained)
    }

    /// The names of the sets it learnt from.
    pub fn names(&self) -> impl Iterator<Item = &str> + '_ {
        self.datasets.iter().map(|source| source.name.as_str())
    }
}

/// sha256 of the files that a model wrote into `dir`, by name.
fn digest(dir: &Path) -> Result<String> {
    let entries = fs::read_dir(dir).map_err(Error::io("read the folder", dir))?;
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<std::io::Result<_>>()
        .map_err(Error::io("read the folder", dir))?;
    paths.retain(|path| path.file_name().is_some_and(|name| name != FILE));
    paths.sort();
    let mut hash = Sha256::new();
    for path in paths {
        hash.update(path.file_name().unwrap_or_default().as_encoded_bytes());
        hash.update(fs::read(&path).map_err(Error::io("read", &path))?);
    }
    Ok(format!("{:x}", hash.finalize()))
}
