//! Matrices that no state dict holds, as they follow from the training rows.

use std::{fs, path::Path};

use candle_core::{DType, Tensor};
use ndarray::Array2;

use crate::{Error, Result, models::neural::tensor_error};

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

impl Rule {
    /// The matrix, with as many axes as the network keeps it with.
    pub(super) fn hold(self, name: &str, given: &Tensor, dims: &[usize]) -> Result<Tensor> {
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
pub(super) fn furthest(most: f64, apart: f64) -> f64 {
    if apart.is_nan() { f64::INFINITY } else { most.max(apart.abs()) }
}

/// A matrix that NumPy wrote.
///
/// # Errors
/// If it is no such file, or not one matrix of numbers.
pub fn read_npy(path: &Path) -> Result<Tensor> {
    let bytes = fs::read(path).map_err(Error::io("read", path))?;
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
