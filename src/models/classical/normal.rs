//! Least squares from second moments: the equations, their solution, and the score of any map.

use faer::{
    Mat, MatRef, Side,
    linalg::solvers::{Llt, Solve},
};

use super::{level::Level, moments::Moments};

/// A linear map with what is added to it.
#[derive(Clone, Debug)]
pub struct Solution {
    /// `[lookback, horizon]`.
    pub weights: Mat<f64>,
    /// `[horizon]`.
    pub bias: Vec<f64>,
}

impl Solution {
    pub fn is_finite(&self) -> bool {
        self.weights.is_all_finite() && self.bias.iter().all(|bias| bias.is_finite())
    }
}

/// The normal equations `gram W = cross`, the intercept eliminated.
#[derive(Debug)]
pub struct Normal<'a> {
    moments: &'a Moments,
    intercept: bool,
    /// `[lookback, lookback]`.
    pub gram: Mat<f64>,
    /// `[lookback, horizon]`.
    pub cross: Mat<f64>,
    /// The mean of the diagonal of `gram`; 0 if the lookbacks hold nothing that could tell one from
    /// another.
    pub scale: f64,
}

impl<'a> Normal<'a> {
    /// The equations of `moments`; the best intercept for each `W` is put in for it.
    pub fn new(moments: &'a Moments, intercept: bool) -> Self {
        let (past, future) = moments.sums.split_at(moments.lookback);
        let share = if intercept { 1.0 / moments.squares } else { 0.0 };
        let mut gram = moments.products.subrows(0, past.len()).to_owned();
        let mut cross = moments.products.subrows(past.len(), future.len()).transpose().to_owned();
        for (column, sum) in past.iter().enumerate() {
            add(gram.col_as_slice_mut(column), past, -sum * share);
        }
        for (column, sum) in future.iter().enumerate() {
            add(cross.col_as_slice_mut(column), past, -sum * share);
        }
        let scale = (0..past.len()).map(|row| gram[(row, row)]).sum::<f64>() / past.len() as f64;
        // A constant leaves nothing but what rounding made of it.
        let constant = scale <= 1e-12 * moments.raw_mean_square * moments.windows as f64;
        Self { moments, intercept, gram, cross, scale: if constant { 0.0 } else { scale } }
    }

    /// How many samples the sums are over.
    #[cfg(feature = "regressors")]
    pub fn windows(&self) -> usize {
        self.moments.windows
    }

    /// The solution of `(gram + penalty scale I) W = cross`; none if it is not unique.
    ///
    /// Taking off a level leaves one direction `v` in which no lookback has anything (`gram v = 0`).
    /// Adding `scale v v^T` makes the equations regular there, and changes nothing elsewhere: the
    /// solution is the one without any part along `v`.
    pub fn ridge(&self, penalty: f64, level: Level) -> Option<Mat<f64>> {
        let mut gram = self.gram.clone();
        let lookback = gram.nrows();
        for row in 0..lookback {
            gram[(row, row)] += penalty * self.scale;
        }
        if let Some(weights) = level.weights(lookback) {
            let norm: f64 = weights.iter().map(|weight| weight * weight).sum();
            for (column, weight) in weights.iter().enumerate() {
                add(gram.col_as_slice_mut(column), &weights, self.scale * weight / norm);
            }
        }
        let factor = gram.llt(Side::Lower).ok()?;
        is_regular(&gram, &factor).then(|| factor.solve(&self.cross))
    }

    /// `weights` with the intercept that is best for them.
    pub fn with_bias(&self, weights: Mat<f64>) -> Solution {
        let (past, future) = self.moments.sums.split_at(self.moments.lookback);
        let bias = match self.intercept {
            true => future
                .iter()
                .enumerate()
                .map(|(step, sum)| (sum - dot(weights.col_as_slice(step), past)) / self.moments.squares)
                .collect(),
            false => vec![0.0; future.len()],
        };
        Solution { weights, bias }
    }
}

/// Whether no pivot is lost in the rounding of the diagonal it was subtracted from.
fn is_regular(gram: &Mat<f64>, factor: &Llt<f64>) -> bool {
    let size = gram.nrows();
    let least = |row: usize| gram[(row, row)] * f64::EPSILON * size as f64;
    (0..size).all(|row| factor.L()[(row, row)].powi(2) > least(row))
}

/// `sum |y - W x - b r|^2` over the windows of `moments`.
///
/// A quadratic form of the moments: no forecast is made.
pub fn squared_error(moments: &Moments, Solution { weights, bias }: &Solution) -> f64 {
    let (past, future) = moments.sums.split_at(moments.lookback);
    let gram = moments.products.subrows(0, past.len());
    let cross = moments.products.subrows(past.len(), future.len());
    let mapped: Mat<f64> = gram * weights;
    let steps = bias.iter().zip(future).enumerate().map(|(step, (bias, target))| {
        let weights = weights.col_as_slice(step);
        let with_target: f64 = row(cross, step).zip(weights).map(|(cross, weight)| cross * weight).sum();
        dot(mapped.col_as_slice(step), weights) - 2.0 * with_target
            + bias * (2.0 * (dot(weights, past) - target) + bias * moments.squares)
    });
    moments.targets + steps.sum::<f64>()
}

fn row(matrix: MatRef<'_, f64>, index: usize) -> impl Iterator<Item = f64> {
    (0..matrix.ncols()).map(move |column| matrix[(index, column)])
}

fn dot(left: &[f64], right: &[f64]) -> f64 {
    left.iter().zip(right).map(|(left, right)| left * right).sum()
}

fn add(to: &mut [f64], from: &[f64], times: f64) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += from * times);
}
