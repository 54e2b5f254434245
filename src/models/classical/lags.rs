//! Products of a series with itself some rows later, summed over all rows.

use std::{
    hash::{DefaultHasher, Hasher},
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use faer::{Accum, Mat, MatRef, Par, linalg::matmul::matmul};
use rayon::prelude::*;

/// Rows of a block; lags are computed so many at a time.
const BLOCK: usize = 64;

/// `sum over i of left[i] right[i + lag]` for each `lag` of `lags`.
///
/// Beyond its end a series counts as zero. The rows are cut into blocks, one a row of a matrix `A`:
/// then `A^T A`, with one of them `d` rows ahead, holds the products of all lags around `64 d`,
/// summed over the blocks, and its diagonals are what is asked for. That is as many products as
/// the definition takes, at the speed of a matrix product. Each lag is summed in the same order
/// whatever range it is asked for in.
pub fn lag_products(left: &[f64], right: &[f64], lags: Range<usize>) -> Vec<f64> {
    let rows = left.len().max(right.len()).div_ceil(BLOCK);
    let (left, right) = (padded(left, rows), padded(right, rows));
    let (left, right) = (blocks(&left, rows), blocks(&right, rows));
    let mut products = vec![0.0; lags.len()];
    let mut tile = Mat::<f64>::zeros(BLOCK, BLOCK);
    for ahead in (lags.start / BLOCK..=lags.end.div_ceil(BLOCK)).take_while(|ahead| *ahead < rows) {
        let (here, there) = (left.subrows(0, rows - ahead), right.subrows(ahead, rows - ahead));
        matmul(tile.as_mut(), Accum::Replace, here.transpose(), there, 1.0, Par::Seq);
        for column in 0..BLOCK {
            // Row `r` of this column is lag `to - r`; those of `lags` are neighbours.
            let to = ahead * BLOCK + column;
            let rows = (to + 1).saturating_sub(lags.end).min(BLOCK)..(to + 1).saturating_sub(lags.start).min(BLOCK);
            if !rows.is_empty() {
                let slots = &mut products[to + 1 - rows.end - lags.start..to + 1 - rows.start - lags.start];
                let found = &tile.col_as_slice(column)[rows];
                slots.iter_mut().rev().zip(found).for_each(|(slot, product)| *slot += product);
            }
        }
    }
    products
}

fn padded(series: &[f64], rows: usize) -> Vec<f64> {
    let mut padded = series.to_vec();
    padded.resize(rows * BLOCK, 0.0);
    padded
}

fn blocks(series: &[f64], rows: usize) -> MatRef<'_, f64> {
    MatRef::from_row_major_slice(series, rows, BLOCK)
}

/// The lag products of several series, the first `count` of each.
#[derive(Debug, Default)]
pub struct Lags {
    count: usize,
    /// `[series][lag]`.
    products: Vec<Vec<f64>>,
}

impl Lags {
    /// At least the first `count` lag products of each of `series`, from memory where they are known.
    ///
    /// They depend neither on the lookback nor on the horizon, only on the rows; so the horizons and
    /// models of a benchmark that share their rows share them too. The last few sets of rows are
    /// remembered, for the whole process.
    pub fn recall(series: &[&[f64]], count: usize) -> Arc<Self> {
        static MEMORY: Mutex<Vec<(u64, Arc<Lags>)>> = Mutex::new(Vec::new());
        // The training and the validation rows of two data sets.
        const REMEMBERED: usize = 4;
        // Nothing is computed while the lock is held: a thread that waits for work may be given
        // another fit, which would then wait for itself.
        let lock = || MEMORY.lock().unwrap_or_else(PoisonError::into_inner);

        let key = digest(series);
        let known = lock().iter().find(|(of, _)| *of == key).map(|(_, lags)| Arc::clone(lags));
        match known {
            Some(lags) if lags.count >= count => lags,
            known => {
                let lags = Arc::new(Self::of(series, count, known.as_deref().unwrap_or(&Self::default())));
                let mut memory = lock();
                memory.retain(|(of, _)| *of != key);
                memory.truncate(REMEMBERED - 1);
                memory.insert(0, (key, Arc::clone(&lags)));
                lags
            }
        }
    }

    /// The lag products of each of `series`; those that are in `known` are not computed again.
    fn of(series: &[&[f64]], count: usize, known: &Self) -> Self {
        let count = count.next_multiple_of(BLOCK);
        let products = series
            .par_iter()
            .enumerate()
            .map(|(index, series)| {
                let mut products = known.products.get(index).cloned().unwrap_or_default();
                products.extend(lag_products(series, series, known.count..count));
                products
            })
            .collect();
        Self { count, products }
    }

    /// The lag products of series `index`.
    pub fn get(&self, index: usize) -> &[f64] {
        &self.products[index]
    }
}

fn digest(series: &[&[f64]]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for series in series {
        hasher.write_usize(series.len());
        for value in *series {
            hasher.write_u64(value.to_bits());
        }
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn noise(rows: usize, seed: u64) -> Vec<f64> {
        let mut draw = ChaCha8Rng::seed_from_u64(seed);
        (0..rows).map(|_| draw.random_range(-1.0..1.0)).collect()
    }

    #[test]
    fn lag_products_are_those_of_the_definition() {
        for (rows, shorter) in [(300, 220), (128, 128), (40, 7)] {
            let (left, right) = (noise(shorter, 1), noise(rows, 2));
            let products = lag_products(&left, &right, 0..320);
            for (lag, product) in products.into_iter().enumerate() {
                let expected: f64 = left.iter().zip(right.iter().skip(lag)).map(|(left, right)| left * right).sum();
                assert!((product - expected).abs() < 1e-12, "lag {lag} of {rows} rows: {product}, not {expected}");
            }
        }
    }

    #[test]
    fn remembered_and_fresh_lags_have_the_same_bits() {
        let series: Vec<_> = (0..5).map(|seed| noise(500, seed)).collect();
        let series: Vec<_> = series.iter().map(Vec::as_slice).collect();
        let fresh = Lags::of(&series, 300, &Lags::default());
        let first = Lags::recall(&series, 70);
        let extended = Lags::recall(&series, 300);
        let again = Lags::recall(&series, 10);
        for index in 0..series.len() {
            assert_eq!(fresh.get(index), extended.get(index));
            assert_eq!(fresh.get(index), again.get(index));
            assert_eq!(&fresh.get(index)[..first.count], first.get(index));
        }
    }
}
