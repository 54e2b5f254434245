//! OrthoTrans: the basis in which the values of a window are uncorrelated in time.
//!
//! The eigenvectors of how the values at different places of a window go together, over all windows of
//! the training rows (Yue et al., 2025, section 3.2). The authors' notebook divides a covariance by the
//! variance of its later place and lets the solver read the lower triangle; so does
//! [`Correlation::LowerTriangle`].

use faer::{Mat, Side};
use ndarray::{Array2, ArrayView1};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// What the basis diagonalises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Correlation {
    /// cov(i, j) / var(j) for i ≥ j: what the authors' code computes.
    #[default]
    LowerTriangle,
    /// cov(i, j) / √(var(i) var(j)): what the paper says.
    Pearson,
}

/// Below this variance of any place a variate is left out, as in the authors' code. There it is in the
/// units of the data, here in those of the windows, which are z-scores.
const SMALLEST_VARIANCE: f64 = 1e-4;

/// The mean over variates of how the places of a window of `length` values go together,
/// `[length, length]`, of which only the lower triangle is set; none where no variate varies.
///
/// Takes length · rows multiplications for each variate: the sums of products of neighbouring windows
/// differ by two terms.
pub fn correlation<'a>(
    variates: impl Iterator<Item = ArrayView1<'a, f64>>,
    length: usize,
    kind: Correlation,
) -> Option<Array2<f64>> {
    let mut mean = Array2::zeros((length, length));
    let mut kept = 0;
    for values in variates.filter(|values| values.len() > length) {
        let covariance = covariance(values, length);
        let variance = covariance.diag().to_owned();
        if variance.iter().any(|variance| *variance < SMALLEST_VARIANCE) {
            continue;
        }
        kept += 1;
        for later in 0..length {
            for earlier in 0..=later {
                let scale = match kind {
                    Correlation::LowerTriangle => variance[earlier],
                    Correlation::Pearson => (variance[earlier] * variance[later]).sqrt(),
                };
                mean[[later, earlier]] += covariance[[later, earlier]] / scale;
            }
        }
    }
    (kept > 0).then(|| mean / f64::from(kept))
}

/// The sample covariance of the values at each two places of all windows, lower triangle.
fn covariance(values: ArrayView1<'_, f64>, length: usize) -> Array2<f64> {
    let windows = values.len() - length + 1;
    // Centred first, so that nothing large is subtracted from something large.
    let centre = values.mean().unwrap_or(0.0);
    let values: Vec<f64> = values.iter().map(|value| value - centre).collect();
    let mut products = Array2::zeros((length, length));
    for later in 0..length {
        products[[later, 0]] = (0..windows).map(|at| values[at + later] * values[at]).sum();
    }
    for earlier in 1..length {
        for later in earlier..length {
            let (i, j) = (later - 1, earlier - 1);
            products[[later, earlier]] =
                products[[i, j]] - values[i] * values[j] + values[i + windows] * values[j + windows];
        }
    }
    let mut sums = vec![values[..windows].iter().sum::<f64>()];
    for place in 1..length {
        sums.push(sums[place - 1] - values[place - 1] + values[place - 1 + windows]);
    }
    for later in 0..length {
        for earlier in 0..=later {
            let both = sums[later] * sums[earlier] / windows as f64;
            products[[later, earlier]] = (products[[later, earlier]] - both) / (windows - 1) as f64;
        }
    }
    products
}

/// The eigenvectors of a symmetric matrix given by its lower triangle, as rows, that of the largest
/// eigenvalue first; of each the entry that is largest in size is positive.
///
/// # Errors
/// If the eigenvalues cannot be found.
pub fn eigenvectors(lower: &Array2<f64>) -> Result<(Array2<f64>, Vec<f64>)> {
    let length = lower.nrows();
    let matrix = Mat::from_fn(length, length, |row, column| lower[[row.max(column), row.min(column)]]);
    let eigen = matrix
        .self_adjoint_eigen(Side::Lower)
        .map_err(|error| Error::other(format!("olinear: no basis was found: {error:?}")))?;
    let mut basis = Array2::from_shape_fn((length, length), |(row, column)| eigen.U()[(column, length - 1 - row)]);
    for mut row in basis.rows_mut() {
        let largest = row
            .iter()
            .copied()
            .fold(0.0, |largest: f64, entry| if entry.abs() > largest.abs() { entry } else { largest });
        if largest < 0.0 {
            row.mapv_inplace(|entry| -entry);
        }
    }
    let values = (0..length).map(|row| eigen.S()[length - 1 - row]).collect();
    Ok((basis, values))
}

/// How the variates go together: Pearson's correlation, `[variates, variates]`. A constant variate goes
/// with itself alone.
pub fn between_variates(columns: &[Vec<f64>]) -> Array2<f64> {
    let centred: Vec<Vec<f64>> = columns
        .iter()
        .map(|column| {
            let mean = column.iter().sum::<f64>() / column.len() as f64;
            column.iter().map(|value| value - mean).collect()
        })
        .collect();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let sizes: Vec<f64> = centred.iter().map(|column| dot(column, column).sqrt()).collect();
    Array2::from_shape_fn((columns.len(), columns.len()), |(row, column)| {
        let size = sizes[row] * sizes[column];
        match (row == column, size > 0.0) {
            (true, _) => 1.0,
            (false, true) => dot(&centred[row], &centred[column]) / size,
            (false, false) => 0.0,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(rows: usize) -> Vec<f64> {
        (0..rows).map(|row| (row as f64 * 0.7).sin() + (row * row % 13) as f64 / 5.0 + 100.0).collect()
    }

    #[test]
    fn covariances_are_those_of_all_windows() {
        let values = wave(60);
        let length = 8;
        let windows: Vec<&[f64]> = values.windows(length).collect();
        let mean = |place: usize| windows.iter().map(|window| window[place]).sum::<f64>() / windows.len() as f64;
        let found = covariance(ArrayView1::from(&values), length);
        for i in 0..length {
            for j in 0..=i {
                let products = windows.iter().map(|window| (window[i] - mean(i)) * (window[j] - mean(j)));
                let expected = products.sum::<f64>() / (windows.len() - 1) as f64;
                assert!((found[[i, j]] - expected).abs() < 1e-10, "{i} {j}");
            }
        }
    }

    #[test]
    fn the_basis_is_orthogonal_and_diagonalises() -> Result<()> {
        let values = wave(200);
        let lower = correlation([ArrayView1::from(&values)].into_iter(), 12, Correlation::Pearson).unwrap();
        let whole = Array2::from_shape_fn((12, 12), |(i, j)| lower[[i.max(j), i.min(j)]]);
        let (basis, eigenvalues) = eigenvectors(&lower)?;
        let identity = basis.dot(&basis.t());
        let diagonal = basis.dot(&whole).dot(&basis.t());
        for i in 0..12 {
            for j in 0..12 {
                assert!((identity[[i, j]] - f64::from(u8::from(i == j))).abs() < 1e-12);
                let expected = if i == j { eigenvalues[i] } else { 0.0 };
                assert!((diagonal[[i, j]] - expected).abs() < 1e-10);
            }
        }
        assert!(eigenvalues.is_sorted_by(|a, b| a >= b));
        Ok(())
    }

    // The reference's own matrices; a sign is arbitrary.
    #[test]
    fn the_basis_is_that_of_the_authors_code() {
        let bytes =
            std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/olinear_basis.safetensors")).unwrap();
        let tensors = candle_core::safetensors::load_buffer(&bytes, &candle_core::Device::Cpu).unwrap();
        let matrix = |name: &str| -> Array2<f64> {
            let rows: Vec<Vec<f32>> = tensors[name].to_vec2().unwrap();
            Array2::from_shape_fn((rows.len(), rows[0].len()), |(row, column)| f64::from(rows[row][column]))
        };
        let data = matrix("data");
        let expected = matrix("corr");
        let found = correlation(data.columns().into_iter(), 16, Correlation::LowerTriangle).unwrap();
        for row in 0..16 {
            for column in 0..=row {
                assert!((found[[row, column]] - expected[[row, column]]).abs() < 1e-6, "{row} {column}");
            }
        }
        let (basis, eigenvalues) = eigenvectors(&found).unwrap();
        let theirs: Vec<f32> = tensors["eigenvalues"].to_vec1().unwrap();
        let vectors = matrix("q_mat");
        for row in 0..16 {
            assert!((eigenvalues[row] - f64::from(theirs[row])).abs() < 1e-5);
            let along = basis.row(row).dot(&vectors.row(row));
            assert!((along.abs() - 1.0).abs() < 1e-5, "{row}: {along}");
        }
    }

    #[test]
    fn constants_are_left_out() {
        let (values, constant) = (wave(100), vec![3.0; 100]);
        let of = |columns: &[&Vec<f64>]| {
            correlation(columns.iter().map(|column| ArrayView1::from(*column)), 5, Correlation::LowerTriangle)
        };
        assert_eq!(of(&[&values, &constant]), of(&[&values]));
        assert_eq!(of(&[&constant]), None);
        let between = between_variates(&[values, constant]);
        assert_eq!(between, Array2::<f64>::eye(2));
    }
}
