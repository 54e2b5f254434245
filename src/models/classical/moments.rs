//! The second moments of all sliding windows, without ever writing a window down.
//!
//! With `s` a run of rows and `S[a, b] = sum over the windows i of s[i + a] s[i + b]`, the next entry
//! on a diagonal loses one product and gains one:
//! `S[a + 1, b + 1] = S[a, b] - s[a] s[b] + s[a + n] s[b + n]`, `n` being the number of windows. So
//! all follows from the first row, which is a lag product short of its last terms.

use std::sync::Arc;

use faer::{Accum, Mat, MatRef, Par, linalg::matmul::matmul};
use rayon::prelude::*;

use super::{
    lags::{Lags, lag_products},
    level::Level,
};
use crate::windows::Windows;

/// One variate of a run of neighbouring windows.
#[derive(Clone, Copy, Debug)]
struct Sequence<'a> {
    rows: &'a [f64],
    windows: usize,
}

/// What the moments of `windows` are made from.
#[derive(Debug)]
pub struct Gram<'a> {
    lookback: usize,
    horizon: usize,
    variates: usize,
    /// Run after run, all variates of each.
    sequences: Vec<Sequence<'a>>,
    lags: Arc<Lags>,
}

impl<'a> Gram<'a> {
    pub fn of(windows: &Windows<'a>) -> Self {
        let shape = windows.shape();
        let sequences: Vec<_> = windows
            .runs()
            .flat_map(|run| {
                (0..shape.variates).map(move |variate| {
                    let rows = &run.series.variate(variate)[run.rows.clone()];
                    Sequence { rows, windows: run.windows }
                })
            })
            .collect();
        let rows: Vec<_> = sequences.iter().map(|sequence| sequence.rows).collect();
        let lags = Lags::recall(&rows, shape.lookback + shape.horizon);
        Self { lookback: shape.lookback, horizon: shape.horizon, variates: shape.variates, sequences, lags }
    }

    /// The moments over all variates, each of them a sample of its own.
    pub fn shared(&self, level: Level) -> Moments {
        self.moments((0..self.sequences.len()).collect(), level)
    }

    /// The moments of one variate.
    pub fn of_variate(&self, variate: usize, level: Level) -> Moments {
        self.moments((variate..self.sequences.len()).step_by(self.variates).collect(), level)
    }

    fn moments(&self, chosen: Vec<usize>, level: Level) -> Moments {
        let (lookback, width) = (self.lookback, self.lookback + self.horizon);
        // Sequence by sequence on any thread, but added up in their order: the bits do not depend on
        // the number of threads.
        let edges: Vec<_> = chosen.par_iter().map(|index| self.edge(*index, level)).collect();
        let mut total = Edge { products: vec![0.0; width], sums: vec![0.0; width], squares: 0.0, targets: 0.0 };
        for edge in edges {
            add(&mut total.products, &edge.products);
            add(&mut total.sums, &edge.sums);
            total.squares += edge.squares;
            total.targets += edge.targets;
        }

        // What all diagonals gain and lose at each step.
        let gather = |start: fn(&Sequence<'_>) -> usize| -> Vec<f64> {
            chosen
                .iter()
                .map(|index| &self.sequences[*index])
                .flat_map(|sequence| &sequence.rows[start(sequence)..][..width - 1])
                .copied()
                .collect()
        };
        let (lost, gained) = (gather(|_| 0), gather(|sequence| sequence.windows));
        let mut steps = Mat::zeros(width - 1, lookback - 1);
        for (rows, sign, accumulate) in [(&gained, 1.0, Accum::Replace), (&lost, -1.0, Accum::Add)] {
            let rows = MatRef::from_row_major_slice(rows, chosen.len(), width - 1);
            let (all, past) = (rows.transpose(), rows.subcols(0, lookback - 1));
            matmul(steps.as_mut(), accumulate, all, past, sign, Par::Seq);
        }

        let mut products = Mat::zeros(width, lookback);
        let mut column = total.products;
        for past in 0..lookback {
            products.col_as_slice_mut(past).copy_from_slice(&column);
            if past + 1 < lookback {
                let first = products[(past + 1, 0)]; // by symmetry
                let next = column.iter().zip(steps.col_as_slice(past)).map(|(product, step)| product + step);
                column = std::iter::once(first).chain(next).collect();
            }
        }
        let windows: usize = chosen.iter().map(|index| self.sequences[*index].windows).sum();
        let Edge { sums, squares, targets, .. } = total;
        let raw_mean_square = (0..lookback).map(|row| products[(row, row)]).sum::<f64>() / (lookback * windows) as f64;
        let mut moments = Moments { lookback, windows, products, sums, squares, targets, raw_mean_square };
        moments.take_off(level);
        moments
    }

    /// What the recurrences start from, for sequence `index`.
    fn edge(&self, index: usize, level: Level) -> Edge {
        let (lookback, width) = (self.lookback, self.lookback + self.horizon);
        let Sequence { rows, windows } = self.sequences[index];
        // The lag products go on to the last row, the windows only start in the first `windows`.
        let beyond = lag_products(&rows[windows..], &rows[windows..], 0..width);
        let products = self.lags.get(index).iter().zip(&beyond).map(|(all, beyond)| all - beyond).collect();
        let deviations = level.scales_intercept().then(|| deviations(rows, windows, lookback));
        let (sums, squares) = match &deviations {
            Some(deviations) => (
                lag_products(deviations, rows, 0..width),
                deviations.iter().map(|deviation| deviation * deviation).sum(),
            ),
            None => (sliding_sums(rows.iter().copied(), windows).collect(), windows as f64),
        };
        let targets = sliding_sums(rows[lookback..].iter().map(|value| value * value), windows).sum();
        Edge { products, sums, squares, targets }
    }
}

/// The part of the moments that is not a recurrence over the lookback rows; see [`Moments`].
struct Edge {
    products: Vec<f64>,
    sums: Vec<f64>,
    squares: f64,
    targets: f64,
}

/// Sums over windows, each variate of a window being a sample of its own.
///
/// `z` are all rows of a window, the first `lookback` of them `x` and the others `y`; `r` is what
/// the intercept is multiplied by: 1, or the deviation of the lookback. With a [`Level`], `z` is
/// what is left after it was taken off.
#[derive(Clone, Debug)]
pub struct Moments {
    pub lookback: usize,
    /// How many samples there are.
    pub windows: usize,
    /// `sum z x`, `[lookback + horizon, lookback]`.
    pub products: Mat<f64>,
    /// `sum r z`, `[lookback + horizon]`.
    pub sums: Vec<f64>,
    /// `sum r r`.
    pub squares: f64,
    /// `sum y y`, over all steps of the horizon.
    pub targets: f64,
    /// The mean of the squares of all lookback values before a level was taken off: what the
    /// rounding of the other sums is relative to.
    pub raw_mean_square: f64,
}

impl Moments {
    /// Turns the moments of raw windows into those with the level taken off.
    ///
    /// The level is `u x` with some weights `u`, so `sum (z_a - u x)(z_b - u x)` follows from the
    /// raw products: `S - g 1 - 1 g + q`, where `g = S u` and `q = u S u`.
    fn take_off(&mut self, level: Level) {
        let Some(weights) = level.weights(self.lookback) else { return };
        let with_level = &self.products * MatRef::from_column_major_slice(&weights, self.lookback, 1);
        let with_level = with_level.col_as_slice(0);
        let of_level = dot(&weights, &with_level[..self.lookback]);
        for (past, level) in with_level[..self.lookback].iter().enumerate() {
            for (product, other) in self.products.col_as_slice_mut(past).iter_mut().zip(with_level) {
                *product += of_level - level - other;
            }
        }
        let targets = &with_level[self.lookback..];
        self.targets += targets.len() as f64 * of_level - 2.0 * targets.iter().sum::<f64>();
        let sum = dot(&weights, &self.sums[..self.lookback]);
        self.sums.iter_mut().for_each(|value| *value -= sum);
    }
}

/// The deviation of each lookback, as [`Level::Standardise`] takes it.
fn deviations(rows: &[f64], windows: usize, lookback: usize) -> Vec<f64> {
    let mean = rows.iter().sum::<f64>() / rows.len() as f64;
    let centred = || rows[..windows + lookback - 1].iter().map(|value| value - mean);
    let sums = sliding_sums(centred(), lookback);
    let squares = sliding_sums(centred().map(|value| value * value), lookback);
    let lookback = lookback as f64;
    sums.zip(squares)
        .map(|(sum, square)| {
            let variance = square / lookback - (sum / lookback).powi(2);
            (variance.max(0.0) + Level::EPSILON).sqrt()
        })
        .collect()
}

/// The sum of each `width` neighbours.
fn sliding_sums(values: impl Iterator<Item = f64>, width: usize) -> impl Iterator<Item = f64> {
    let running: Vec<f64> = std::iter::once(0.0)
        .chain(values.scan(0.0, |sum, value| {
            *sum += value;
            Some(*sum)
        }))
        .collect();
    (width..running.len()).map(move |end| running[end] - running[end - width])
}

fn dot(left: &[f64], right: &[f64]) -> f64 {
    left.iter().zip(right).map(|(left, right)| left * right).sum()
}

fn add(to: &mut [f64], from: &[f64]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
}
