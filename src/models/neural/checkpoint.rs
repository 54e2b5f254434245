//! How far a training run has come, on disk: weights, moments and counts after an epoch, from which the run
//! goes on with the bits of one that was never interrupted.
//!
//! Nothing else carries over from epoch to epoch: orders, dropout masks and samples follow from the seed and the
//! number of the epoch or step.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    fs::{self, File},
    path::PathBuf,
};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::kernels::adam::Moments;
use crate::{
    Error, Result,
    forecaster::{Checkpoint, EpochReport},
};

/// The one file in the folder of a checkpoint.
const FILE: &str = "training.safetensors";

/// What a run needs to go on after an epoch.
#[derive(Debug)]
pub struct Reached {
    pub counts: Counts,
    /// What changes in training, one after the other.
    pub state: Vec<Vec<f32>>,
    /// The same at the best epoch.
    pub best: Vec<Vec<f32>>,
    /// Of each trained weight.
    pub moments: Vec<Moments>,
}

/// The numbers beside the weights.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    pub curve: Vec<EpochReport>,
    pub best_loss: f64,
    pub without_improvement: usize,
    pub steps: usize,
}

/// Writes how far a run has come, whole, in place of an earlier one.
///
/// # Errors
/// If it cannot be written.
pub fn write<'a>(
    checkpoint: &Checkpoint,
    counts: &Counts,
    state: &[Vec<f32>],
    best: &[Vec<f32>],
    moments: impl Iterator<Item = &'a Moments>,
) -> Result<()> {
    let folder = &checkpoint.folder;
    fs::create_dir_all(folder).map_err(Error::io("make the folder", folder))?;
    let mut tensors: Vec<(String, &[f32])> = Vec::new();
    for (index, (values, best)) in state.iter().zip(best).enumerate() {
        tensors.extend([(format!("state.{index}"), &values[..]), (format!("best.{index}"), best)]);
    }
    for (index, Moments { mean, square }) in moments.enumerate() {
        tensors.extend([(format!("mean.{index}"), &mean[..]), (format!("square.{index}"), square)]);
    }
    let hash = sha256(tensors.iter().map(|(name, values)| (&name[..], bytemuck::cast_slice(values))));
    let views = tensors.into_iter().map(|(name, values)| {
        let view = TensorView::new(Dtype::F32, vec![values.len()], bytemuck::cast_slice(values));
        (name, view.expect("a list of numbers has the length it has"))
    });
    let counts = serde_json::to_string(counts).map_err(|error| Error::file(folder, error))?;
    let about =
        HashMap::from([("counts".into(), counts), ("of".into(), checkpoint.of.clone()), ("sha256".into(), hash)]);
    let whole = path(checkpoint);
    // In a file of its own that takes the place of an earlier one.
    safetensors::serialize_to_file(views, Some(about), &whole).map_err(|error| Error::file(&whole, error))?;
    File::open(&whole).and_then(|file| file.sync_all()).map_err(Error::io("write", &whole))
}

/// Of the numbers alone, by their names.
fn sha256<'a>(tensors: impl Iterator<Item = (&'a str, &'a [u8])>) -> String {
    let tensors: BTreeMap<&str, &[u8]> = tensors.collect();
    let mut hash = Sha256::new();
    for (name, values) in tensors {
        hash.update(name);
        hash.update(values);
    }
    format!("{:x}", hash.finalize())
}

/// Why a checkpoint that is there is not gone on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    Damaged,
    OfAnother,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Damaged => "how far an earlier run had come is not as it was written",
            Self::OfAnother => "how far an earlier run had come is of another build of the program, or of other inputs",
        })
    }
}

impl Reached {
    /// What was written for a run like this, with `state` and `moments` of these lengths; none where there is none.
    ///
    /// # Errors
    /// If it is not whole, or of another program: the run starts anew then.
    pub fn read(checkpoint: &Checkpoint, state: &[usize], moments: &[usize]) -> Result<Option<Self>, Unusable> {
        let Ok(bytes) = fs::read(path(checkpoint)) else { return Ok(None) };
        Self::parse(&bytes, &checkpoint.of, state, moments).map(Some)
    }

    fn parse(bytes: &[u8], of: &str, state: &[usize], moments: &[usize]) -> Result<Self, Unusable> {
        let damaged = || Unusable::Damaged;
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|_| Unusable::Damaged)?;
        let about = header.metadata().as_ref().ok_or_else(damaged)?;
        if about.get("of").is_none_or(|written| written != of) {
            return Err(Unusable::OfAnother);
        }
        let counts = about.get("counts").and_then(|counts| serde_json::from_str(counts).ok()).ok_or_else(damaged)?;
        let tensors = SafeTensors::deserialize(bytes).map_err(|_| Unusable::Damaged)?;
        if about.get("sha256") != Some(&sha256(tensors.iter().map(|(name, tensor)| (name, tensor.data())))) {
            return Err(Unusable::Damaged);
        }
        let values = |name: &str, index: usize, len: usize| -> Option<Vec<f32>> {
            let tensor = tensors.tensor(&format!("{name}.{index}")).ok()?;
            let (chunks, []) = tensor.data().as_chunks::<4>() else { return None };
            let values: Vec<f32> = chunks.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
            (values.len() == len).then_some(values)
        };
        let all = |name: &str, lens: &[usize]| -> Result<Vec<Vec<f32>>, Unusable> {
            lens.iter().enumerate().map(|(index, len)| values(name, index, *len).ok_or_else(damaged)).collect()
        };
        let (means, squares) = (all("mean", moments)?, all("square", moments)?);
        let moments = means.into_iter().zip(squares).map(|(mean, square)| Moments { mean, square }).collect();
        Ok(Self { counts, state: all("state", state)?, best: all("best", state)?, moments })
    }
}

fn path(checkpoint: &Checkpoint) -> PathBuf {
    checkpoint.folder.join(FILE)
}
