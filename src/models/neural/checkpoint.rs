//! How far a training run has come, on disk: weights, moments and counts after an epoch, from which the run
//! goes on with the bits of one that was never interrupted.
//!
//! Nothing else carries over from epoch to epoch: orders, dropout masks and samples follow from the seed and the
//! number of the epoch or step.

use std::{collections::HashMap, fs, path::PathBuf};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};

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
    let views = tensors.into_iter().map(|(name, values)| {
        let view = TensorView::new(Dtype::F32, vec![values.len()], bytemuck::cast_slice(values));
        (name, view.expect("a list of numbers has the length it has"))
    });
    let counts = serde_json::to_string(counts).map_err(|error| Error::file(folder, error))?;
    let about = HashMap::from([("counts".into(), counts), ("of".into(), checkpoint.of.clone())]);
    let (part, whole) = (folder.join(format!("{FILE}.part")), path(checkpoint));
    safetensors::serialize_to_file(views, Some(about), &part).map_err(|error| Error::file(&part, error))?;
    fs::rename(&part, &whole).map_err(Error::io("write", &whole))
}

impl Reached {
    /// What was written for a run like this, with `state` and `moments` of these lengths. What is not there, not
    /// whole or of another program is not taken: the run starts anew then.
    pub fn read(checkpoint: &Checkpoint, state: &[usize], moments: &[usize]) -> Option<Self> {
        let bytes = fs::read(path(checkpoint)).ok()?;
        let (_, header) = SafeTensors::read_metadata(&bytes).ok()?;
        let about = header.metadata().as_ref()?;
        if about.get("of") != Some(&checkpoint.of) {
            return None;
        }
        let counts: Counts = serde_json::from_str(about.get("counts")?).ok()?;
        let tensors = SafeTensors::deserialize(&bytes).ok()?;
        let values = |name: &str, index: usize, len: usize| -> Option<Vec<f32>> {
            let tensor = tensors.tensor(&format!("{name}.{index}")).ok()?;
            let (chunks, []) = tensor.data().as_chunks::<4>() else { return None };
            let values: Vec<f32> = chunks.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
            (values.len() == len).then_some(values)
        };
        let all = |name: &str, lens: &[usize]| -> Option<Vec<Vec<f32>>> {
            lens.iter().enumerate().map(|(index, len)| values(name, index, *len)).collect()
        };
        let (means, squares) = (all("mean", moments)?, all("square", moments)?);
        let moments = means.into_iter().zip(squares).map(|(mean, square)| Moments { mean, square }).collect();
        Some(Self { counts, state: all("state", state)?, best: all("best", state)?, moments })
    }
}

fn path(checkpoint: &Checkpoint) -> PathBuf {
    checkpoint.folder.join(FILE)
}
