//! Windows gathered into arrays of `[batch, time, variates]`.

use std::ops::Range;

use ndarray::{Array3, ArrayView2, ArrayViewMut2, Axis};
use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::window::Windows;

/// All that may be known when a forecast is made. There is no target in here.
#[derive(Clone, Debug)]
pub struct Lookback {
    /// `[batch, lookback, variates]`, scaled. May hold more rows than the shape's lookback where
    /// the whole past is given; the last rows are the latest.
    pub values: Array3<f32>,
    /// Calendar features of those rows, `[batch, lookback, time features]`.
    pub past_time: Array3<f32>,
    /// Calendar features of the rows to forecast, `[batch, horizon, time features]`.
    pub future_time: Array3<f32>,
}

/// Lookbacks and what came after them.
#[derive(Clone, Debug)]
pub struct Batch {
    pub lookback: Lookback,
    /// `[batch, horizon, variates]`, scaled.
    pub target: Array3<f32>,
}

/// The order in which windows are gathered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// By series and time.
    InTime,
    /// Shuffled; the same seed gives the same order.
    Shuffled { seed: u64 },
}

/// Batch after batch; see [`Windows::batches`].
///
/// Not an `Iterator`: each batch is lent, and its buffers hold the next one afterwards.
#[derive(Debug)]
pub struct Batches<'a, 'w> {
    windows: &'w Windows<'a>,
    size: usize,
    order: Option<Vec<usize>>,
    left: Range<usize>,
    batch: Batch,
}

impl<'a, 'w> Batches<'a, 'w> {
    pub(super) fn new(windows: &'w Windows<'a>, left: Range<usize>, size: usize, order: Order) -> Self {
        assert!(size > 0, "a batch holds at least one window");
        let order = match order {
            Order::InTime => None,
            Order::Shuffled { seed } => {
                let mut order: Vec<usize> = (0..windows.len()).collect();
                order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
                Some(order)
            }
        };
        let empty = || Array3::zeros((0, 0, 0));
        let lookback = Lookback { values: empty(), past_time: empty(), future_time: empty() };
        Self { windows, size, order, left, batch: Batch { lookback, target: empty() } }
    }

    /// The next batch, or `None` after the last window.
    ///
    /// Windows of one batch look back equally far: where the whole past is given, a batch ends
    /// before the first window of another length.
    pub fn next_batch(&mut self) -> Option<&Batch> {
        let at = |position: usize| self.windows.get(self.order.as_ref().map_or(position, |order| order[position]));
        let mut gathered = vec![at(self.left.clone().next()?)];
        for position in self.left.clone().take(self.size).skip(1) {
            let window = at(position);
            if window.lookback.nrows() != gathered[0].lookback.nrows() {
                break;
            }
            gathered.push(window);
        }
        self.left.start += gathered.len();
        let Batch { lookback, target } = &mut self.batch;
        gather(&mut lookback.values, gathered.iter().map(|window| window.lookback));
        gather(&mut lookback.past_time, gathered.iter().map(|window| window.past_time));
        gather(&mut lookback.future_time, gathered.iter().map(|window| window.future_time));
        gather(target, gathered.iter().map(|window| window.target));
        Some(&self.batch)
    }
}

/// A number as networks take it.
trait ToF32: Copy {
    fn to_f32(self) -> f32;
}

impl ToF32 for f32 {
    fn to_f32(self) -> f32 {
        self
    }
}

impl ToF32 for f64 {
    fn to_f32(self) -> f32 {
        self as f32
    }
}

fn gather<'a, T: ToF32 + 'a>(into: &mut Array3<f32>, parts: impl ExactSizeIterator<Item = ArrayView2<'a, T>> + Clone) {
    let (rows, columns) = parts.clone().next().expect("a batch holds at least one window").dim();
    let shape = (parts.len(), rows, columns);
    if into.dim() != shape {
        *into = Array3::zeros(shape);
    }
    for (part, slot) in parts.zip(into.axis_iter_mut(Axis(0))) {
        copy(part, slot);
    }
}

// Series lie variate by variate, batches row by row. Tiles of variates keep both in the cache.
fn copy<T: ToF32>(from: ArrayView2<'_, T>, mut to: ArrayViewMut2<'_, f32>) {
    const TILE: usize = 16;
    let tiles = from.axis_chunks_iter(Axis(1), TILE).zip(to.axis_chunks_iter_mut(Axis(1), TILE));
    for (from, mut to) in tiles {
        for (from, to) in from.rows().into_iter().zip(to.rows_mut()) {
            for (from, to) in from.iter().zip(to) {
                *to = from.to_f32();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;
    use crate::{Result, data::Series, windows::WindowShape};

    fn series(rows: usize) -> Series {
        let values = Array2::from_shape_fn((rows, 20), |(row, variate)| (row * 100 + variate) as f64);
        Series::new("s", vec![], (0..20).map(|v| v.to_string()).collect(), values).unwrap()
    }

    #[test]
    fn every_window_is_gathered_once_and_the_last_batch_is_short() -> Result<()> {
        let series = series(20);
        let shape = WindowShape::of(&series, 4, 2)?;
        let windows = Windows::new(std::slice::from_ref(&series), &[0..20], shape)?;
        for order in [Order::InTime, Order::Shuffled { seed: 7 }] {
            let mut batches = windows.batches(4, order);
            let (mut sizes, mut firsts) = (vec![], vec![]);
            while let Some(batch) = batches.next_batch() {
                sizes.push(batch.target.dim().0);
                firsts.extend(batch.lookback.values.axis_iter(Axis(0)).map(|window| window[[0, 3]] as usize));
            }
            firsts.sort_unstable();
            assert_eq!(sizes, [4, 4, 4, 3]);
            assert_eq!(firsts, (0..15).map(|row| row * 100 + 3).collect::<Vec<_>>());
        }
        Ok(())
    }

    #[test]
    fn a_batch_holds_what_its_windows_show() -> Result<()> {
        let series = series(12);
        let shape = WindowShape::of(&series, 4, 2)?;
        let windows = Windows::new(std::slice::from_ref(&series), &[0..12], shape)?;
        let mut batches = windows.batches(3, Order::InTime);
        batches.next_batch();
        let batch = batches.next_batch().expect("there is a second batch");
        let window = windows.get(4);
        assert_eq!(batch.lookback.values.index_axis(Axis(0), 1), window.lookback.mapv(|value| value as f32));
        assert_eq!(batch.target.index_axis(Axis(0), 1), window.target.mapv(|value| value as f32));
        Ok(())
    }

    #[test]
    fn lookbacks_of_different_length_are_never_in_one_batch() -> Result<()> {
        let all = [series(8), series(8), series(9)];
        let shape = WindowShape::of(&all[0], 2, 2)?;
        let windows = Windows::whole_past(&all, &[6..8, 6..8, 7..9], shape)?;
        let mut batches = windows.batches(8, Order::InTime);
        let mut shapes = vec![];
        while let Some(batch) = batches.next_batch() {
            shapes.push((batch.lookback.values.dim().0, batch.lookback.values.dim().1));
        }
        assert_eq!(shapes, [(2, 6), (1, 7)]);
        Ok(())
    }
}
