//! Millions of windows as a few rows: samples with the same second moments.
//!
//! What least squares makes of samples `X`, `Y` depends on `X^T X` and `X^T Y` alone, and so does
//! every method that adds a penalty to it or projects them. With `X^T X = U S U^T` the rows
//! `sqrt(S) U^T` stand for `X` and `U^T X^T Y / sqrt(S)` for `Y`: at most as many as the lookback is
//! long. Where a method only looks at lengths over all steps of the horizon, those may be turned
//! so that few of them hold anything.

use faer::{Mat, Side};
use ndarray::Array2;

use super::normal::Normal;
use crate::{Error, Result};

/// Samples that stand for all windows, in mean squares (not sums).
#[derive(Debug)]
pub struct PseudoSamples {
    /// `[samples, lookback]`.
    pub past: Array2<f64>,
    /// `[samples, directions]`.
    pub future: Array2<f64>,
    /// The directions in steps of the horizon, orthonormal: `[directions, horizon]`.
    directions: Mat<f64>,
}

impl PseudoSamples {
    /// Samples with the moments of `normal`, each of them standing for one of as many windows.
    ///
    /// # Errors
    /// If a decomposition does not converge.
    pub fn of(normal: &Normal<'_>) -> Result<Self> {
        // Directions with less than this part of the largest are left out: of the squares, a
        // hundred-millionth.
        const NEGLIGIBLE: f64 = 1e-4;
        let lookback = normal.gram.nrows();
        let eigen = normal.gram.self_adjoint_eigen(Side::Lower).map_err(|_| diverged("eigenvalues"))?;
        let values: Vec<f64> = eigen.S().column_vector().iter().copied().collect();
        let least = values.iter().copied().fold(0.0, f64::max) * f64::EPSILON * lookback as f64;
        let kept: Vec<usize> = (0..lookback).filter(|index| values[*index] > least).collect();
        // Sums over all windows become sums over as many samples as are kept.
        let share = (kept.len() as f64 / normal.windows() as f64).sqrt();

        let past = Array2::from_shape_fn((kept.len(), lookback), |(sample, row)| {
            share * values[kept[sample]].sqrt() * eigen.U()[(row, kept[sample])]
        });
        let rotated = eigen.U().transpose() * &normal.cross;
        let future = Mat::from_fn(kept.len(), normal.cross.ncols(), |sample, step| {
            share * rotated[(kept[sample], step)] / values[kept[sample]].sqrt()
        });

        let parts = future.thin_svd().map_err(|_| diverged("singular values"))?;
        let sizes: Vec<f64> = parts.S().column_vector().iter().copied().collect();
        let largest = sizes.iter().copied().fold(0.0, f64::max);
        let count = sizes.iter().filter(|size| **size > NEGLIGIBLE * largest).count();
        let future = Array2::from_shape_fn((kept.len(), count), |(sample, direction)| {
            sizes[direction] * parts.U()[(sample, direction)]
        });
        let directions = parts.V().subcols(0, count).transpose().to_owned();
        Ok(Self { past, future, directions })
    }

    /// Weights to the directions, `[lookback, directions]`, as weights to the steps of the horizon.
    pub fn to_steps(&self, weights: &Array2<f64>) -> Mat<f64> {
        Mat::from_fn(weights.nrows(), weights.ncols(), |row, column| weights[[row, column]]) * &self.directions
    }
}

fn diverged(what: &str) -> Error {
    Error::other(format!("the {what} of the lookbacks' moments cannot be found"))
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::{
        data::Series,
        models::classical::{
            elastic_net::ElasticNetParams, level::Level, linear::Solver, moments::Gram, moments::Moments,
            pls::PlsParams,
        },
        windows::{WindowShape, Windows},
    };

    const LEVEL: Level = Level::Last;

    fn moments() -> Result<Moments> {
        const SEED: u64 = 7;
        println!("seed {SEED}");
        let mut draw = ChaCha8Rng::seed_from_u64(SEED);
        let values = Array2::from_shape_fn((400, 2), |(row, _)| {
            (row as f64 / 12.0 * std::f64::consts::TAU).sin() + draw.random_range(-1.0..1.0)
        });
        let series = Series::new("random", vec![], vec!["a".into(), "b".into()], values)?;
        let shape = WindowShape::of(&series, 16, 5)?;
        Ok(Gram::of(&Windows::new(&[series], &[0..400], shape)?).shared(LEVEL))
    }

    fn distance(found: &Mat<f64>, expected: &Mat<f64>) -> f64 {
        (found - expected).norm_l2() / expected.norm_l2()
    }

    #[test]
    fn they_have_the_moments_of_the_windows() -> Result<()> {
        let moments = moments()?;
        let normal = Normal::new(&moments, true);
        let samples = PseudoSamples::of(&normal)?;
        let share = normal.windows() as f64 / samples.past.nrows() as f64;
        let gram = samples.past.t().dot(&samples.past) * share;
        let gram = Mat::from_fn(16, 16, |row, column| gram[[row, column]]);
        assert!(distance(&gram, &normal.gram) < 1e-9);
        let cross = samples.to_steps(&(samples.past.t().dot(&samples.future) * share));
        assert!(distance(&cross, &normal.cross) < 1e-9);
        Ok(())
    }

    #[test]
    fn an_elastic_net_without_a_penalty_is_least_squares() -> Result<()> {
        let moments = moments()?;
        let normal = Normal::new(&moments, true);
        let net = ElasticNetParams { rounds: 10_000, tolerance: 1e-9, ..ElasticNetParams::default() };
        let found = net.solve(&net.start(&normal)?, 0.0)?.expect("every penalty has a solution");
        let expected = normal.ridge(0.0, LEVEL).expect("noise is never singular");
        assert!(distance(&found, &expected) < 1e-4, "{}", distance(&found, &expected));
        Ok(())
    }

    #[test]
    fn an_elastic_net_with_the_whole_penalty_has_no_weights() -> Result<()> {
        let moments = moments()?;
        let normal = Normal::new(&moments, true);
        let net = ElasticNetParams::default();
        let start = net.start(&normal)?;
        let weights = |penalty| -> Result<f64> { Ok(net.solve(&start, penalty)?.map_or(0.0, |map| map.norm_l2())) };
        assert!(weights(1.0)? < 1e-9);
        assert!(weights(0.9)? > 1e-4);
        Ok(())
    }

    #[test]
    fn partial_least_squares_through_all_directions_is_least_squares() -> Result<()> {
        let moments = moments()?;
        let normal = Normal::new(&moments, true);
        let pls = PlsParams::default();
        let found = pls.solve(&pls.start(&normal)?, 100)?.expect("it converges");
        let expected = normal.ridge(0.0, LEVEL).expect("noise is never singular");
        assert!(distance(&found, &expected) < 1e-6, "{}", distance(&found, &expected));
        Ok(())
    }
}
