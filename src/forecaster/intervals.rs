//! How far the truth may lie from a forecast: split-conformal calibration on windows a forecaster did not
//! learn from.
//!
//! Vovk, Gammerman & Shafer, "Algorithmic Learning in a Random World" (2005); the form with a spread is the
//! locally weighted one of Lei et al., JASA 113 (2018), section 5.2. For each step and variate the score of a
//! window is `|error| / spread`, and half the width of an interval of level `p` is the spread of the lookback at
//! hand times the `⌈p · (1 + 1/m) · n⌉`-th smallest of `n` scores.
//!
//! - The spread is `√(s² + s̄²)`: `s` is the deviation of the lookback, `s̄` its mean over all calibration windows.
//!   With `s` alone calm hours would promise too much, without it wild ones.
//! - Windows overlap, so that scores of neighbours are nearly the same: at step `h`, `h` neighbouring targets share
//!   all but one row. `m` is how many windows of a step do not overlap, and takes the place of `n` in the
//!   correction for few scores. Where the rank is above `n`, the largest score is taken, and
//!   [`enough`](Intervals::enough) says that it was.

use std::path::Path;

use ndarray::{Array2, Array3, ArrayView2, Axis, Zip, s};
use rayon::prelude::*;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use super::Forecaster;
use crate::{Error, Result, windows::Windows};

/// Calibration windows at most: more would hardly change a quantile.
const WINDOWS: usize = 1000;
/// Scores kept at once, at most; there are never fewer than [`FEWEST`] windows.
const SCORES: usize = 1 << 26;
const FEWEST: usize = 20;

/// What calibration found, for all steps, variates and levels.
#[derive(Clone, Debug, PartialEq)]
pub struct Intervals {
    levels: Vec<f64>,
    /// In units of the spread, `[levels, horizon, variates]`.
    widths: Array3<f32>,
    /// The mean deviation of a lookback, scaled units.
    spread: Vec<f32>,
    /// For each level, whether the scores were enough for it at every step.
    enough: Vec<bool>,
}

impl Intervals {
    pub(super) const FILE: &str = "intervals.safetensors";

    /// `levels` in percent, in ascending order and each once.
    ///
    /// # Errors
    /// If one is not between 0 and 100.
    pub fn ordered(levels: &[f64]) -> Result<Vec<f64>> {
        if let Some(level) = levels.iter().find(|level| !(**level > 0.0 && **level < 100.0)) {
            return Err(Error::Shape(format!(
                "a level lies between 0 and 100 percent, such as 80, and is not {level}"
            )));
        }
        let mut levels = levels.to_vec();
        levels.sort_by(f64::total_cmp);
        levels.dedup();
        Ok(levels)
    }

    /// Calibrates intervals of `levels` (percent) for `forecaster` on windows it has not learnt from: on all of
    /// them, or on a thousand as far apart as can be.
    ///
    /// # Errors
    /// If a level is none, or the forecaster fails.
    pub fn calibrate(forecaster: &dyn Forecaster, windows: &Windows<'_>, levels: &[f64]) -> Result<Self> {
        let levels = Self::ordered(levels)?;
        let shape = windows.shape();
        let (horizon, variates) = (shape.horizon, shape.variates);
        let most = (SCORES / (horizon * variates)).clamp(FEWEST, WINDOWS);
        let count = windows.len().min(most);
        let errors = |index: usize| -> Result<(Array2<f32>, Vec<f32>)> {
            let number = index * windows.len() / count;
            let mut batches = windows.batches_in(number..number + 1, 1);
            let batch = batches.next_batch().expect("there is a window of each number below their count");
            let forecast = forecaster.predict(&batch.lookback)?;
            if forecast.dim() != batch.target.dim() {
                return Err(Error::Shape(format!(
                    "the forecast is {:?}, not {:?}",
                    forecast.dim(),
                    batch.target.dim()
                )));
            }
            let mut errors = (&forecast - &batch.target).index_axis_move(Axis(0), 0);
            errors.mapv_inplace(f32::abs);
            if errors.iter().any(|error| !error.is_finite()) {
                return Err(Error::NotFinite(format!("a forecast of validation window {number} is no finite number")));
            }
            Ok((errors, deviations(batch.lookback.values.index_axis(Axis(0), 0))))
        };
        let found: Vec<(Array2<f32>, Vec<f32>)> = (0..count).into_par_iter().map(errors).collect::<Result<_>>()?;
        let mean = |variate: usize| {
            let sum: f64 = found.iter().map(|(_, deviations)| f64::from(deviations[variate])).sum();
            (sum / count as f64) as f32
        };
        let spread: Vec<f32> = (0..variates).map(mean).collect();

        let mut widths = Array3::zeros((levels.len(), horizon, variates));
        let mut enough = vec![true; levels.len()];
        let ranks: Vec<Vec<usize>> = (0..horizon).map(|step| ranks(&levels, count, windows.len(), step + 1)).collect();
        for (level, enough) in enough.iter_mut().enumerate() {
            *enough = ranks.iter().all(|ranks| ranks[level] <= count);
        }
        let steps: Vec<_> = widths.axis_iter_mut(Axis(1)).zip(&ranks).enumerate().collect();
        steps.into_par_iter().for_each(|(step, (mut widths, ranks))| {
            for variate in 0..variates {
                let score = |(errors, deviations): &(Array2<f32>, Vec<f32>)| {
                    errors[[step, variate]] / together(deviations[variate], spread[variate])
                };
                let mut scores: Vec<f32> = found.iter().map(score).collect();
                scores.sort_unstable_by(f32::total_cmp);
                for (level, rank) in ranks.iter().enumerate() {
                    widths[[level, variate]] = scores[rank.min(&count) - 1];
                }
            }
        });
        Ok(Self { levels, widths, spread, enough })
    }

    /// In percent, ascending.
    pub fn levels(&self) -> &[f64] {
        &self.levels
    }

    /// For each level, whether there were scores enough for it at every step; where not, its interval reaches as far
    /// as the largest error that was seen.
    pub fn enough(&self) -> &[bool] {
        &self.enough
    }

    /// Half the width of the intervals around a forecast from `lookback`, `[lookback, variates]`, in scaled units:
    /// `[levels, horizon, variates]`.
    pub fn half_widths(&self, lookback: ArrayView2<'_, f32>) -> Array3<f32> {
        let deviations = deviations(lookback);
        let mut widths = self.widths.clone();
        for (variate, (deviation, mean)) in deviations.iter().zip(&self.spread).enumerate() {
            let spread = together(*deviation, *mean);
            widths.slice_mut(s![.., .., variate]).mapv_inplace(|width| width * spread);
        }
        widths
    }

    /// Writes them into the folder `dir`.
    pub(super) fn save(&self, dir: &Path) -> Result<()> {
        let file = dir.join(Self::FILE);
        let bytes = |values: &mut dyn Iterator<Item = f32>| -> Vec<u8> { values.flat_map(f32::to_le_bytes).collect() };
        let levels: Vec<u8> = self.levels.iter().flat_map(|level| level.to_le_bytes()).collect();
        let (widths, spread) = (bytes(&mut self.widths.iter().copied()), bytes(&mut self.spread.iter().copied()));
        let enough: Vec<u8> = self.enough.iter().copied().map(u8::from).collect();
        let (count, horizon, variates) = self.widths.dim();
        let tensor = |kind, shape, data| TensorView::new(kind, shape, data).map_err(|error| Error::file(&file, error));
        let tensors = [
            ("levels", tensor(Dtype::F64, vec![count], &levels)?),
            ("widths", tensor(Dtype::F32, vec![count, horizon, variates], &widths)?),
            ("spread", tensor(Dtype::F32, vec![variates], &spread)?),
            ("enough", tensor(Dtype::U8, vec![count], &enough)?),
        ];
        let content = safetensors::serialize(tensors, None).map_err(|error| Error::file(&file, error))?;
        std::fs::write(&file, content).map_err(Error::io("write", &file))
    }

    /// Reads what [`save`](Self::save) wrote for windows of this horizon and so many variates.
    pub(super) fn load(dir: &Path, horizon: usize, variates: usize) -> Result<Self> {
        let file = dir.join(Self::FILE);
        let content = std::fs::read(&file).map_err(Error::io("read", &file))?;
        let damaged = |what: &dyn std::fmt::Display| Error::file(&file, format!("not whole: {what}"));
        let tensors = SafeTensors::deserialize(&content).map_err(|error| damaged(&error))?;
        let read = |name: &str, kind: Dtype, shape: &[usize]| -> Result<&[u8]> {
            let tensor = tensors.tensor(name).map_err(|error| damaged(&error))?;
            match tensor.dtype() == kind && tensor.shape() == shape {
                true => Ok(tensor.data()),
                false => Err(damaged(&format!("'{name}' is {:?} {:?}", tensor.dtype(), tensor.shape()))),
            }
        };
        let count = tensors.tensor("levels").map_err(|error| damaged(&error))?.shape().iter().product();
        let levels = read("levels", Dtype::F64, &[count])?.chunks_exact(8);
        let levels = levels.map(|bytes| f64::from_le_bytes(bytes.try_into().expect("a chunk has eight bytes")));
        let floats = |bytes: &[u8]| -> Vec<f32> {
            let each = bytes.chunks_exact(4);
            each.map(|bytes| f32::from_le_bytes(bytes.try_into().expect("a chunk has four bytes"))).collect()
        };
        let widths = floats(read("widths", Dtype::F32, &[count, horizon, variates])?);
        let widths = Array3::from_shape_vec((count, horizon, variates), widths).expect("the shape is checked");
        let spread = floats(read("spread", Dtype::F32, &[variates])?);
        let enough = read("enough", Dtype::U8, &[count])?.iter().map(|enough| *enough != 0).collect();
        Ok(Self { levels: levels.collect(), widths, spread, enough })
    }
}

/// The rank of each level at `step` (from 1) among `count` scores of `windows` neighbouring windows.
fn ranks(levels: &[f64], count: usize, windows: usize, step: usize) -> Vec<usize> {
    let apart = (windows as f64 / step as f64).min(count as f64).max(1.0);
    // Rounding must not lift a whole number to the next.
    let rank = |level: &f64| (level / 100.0 * (1.0 + 1.0 / apart) * count as f64 - 1e-9).ceil() as usize;
    levels.iter().map(|level| rank(level).max(1)).collect()
}

/// The deviation of each variate over a lookback.
fn deviations(lookback: ArrayView2<'_, f32>) -> Vec<f32> {
    let rows = lookback.nrows() as f64;
    let deviation = |column: ndarray::ArrayView1<'_, f32>| {
        let mean = column.iter().copied().map(f64::from).sum::<f64>() / rows;
        let variance = column.iter().map(|value| (f64::from(*value) - mean).powi(2)).sum::<f64>() / rows;
        variance.sqrt() as f32
    };
    lookback.columns().into_iter().map(deviation).collect()
}

/// The spread of one variate; never 0, so that a constant is no division by it.
fn together(deviation: f32, mean: f32) -> f32 {
    deviation.hypot(mean).max(1e-6)
}

/// `centre` less and plus `widths`.
pub(super) fn around(centre: ArrayView2<'_, f32>, widths: ArrayView2<'_, f32>) -> [Array2<f32>; 2] {
    let bound = |sign: f32| Zip::from(centre).and(widths).map_collect(|centre, width| centre + sign * width);
    [bound(-1.0), bound(1.0)]
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::{
        data::Series,
        forecaster::FitObserver,
        windows::{Lookback, WindowShape},
    };

    /// Forecasts the last value.
    struct Last(usize);

    impl Forecaster for Last {
        fn fit(&mut self, _: &Windows<'_>, _: &Windows<'_>, _: &mut dyn FitObserver) -> Result<()> {
            Ok(())
        }

        fn predict(&self, lookback: &Lookback) -> Result<Array3<f32>> {
            let (batch, rows, variates) = lookback.values.dim();
            let values = |(window, _, variate)| lookback.values[[window, rows - 1, variate]];
            Ok(Array3::from_shape_fn((batch, self.0, variates), values))
        }

        fn save(&self, _: &Path) -> Result<()> {
            Ok(())
        }

        fn load(&mut self, _: &Path) -> Result<()> {
            Ok(())
        }
    }

    fn noise(rows: usize, variates: usize) -> Series {
        let mut random = ChaCha8Rng::seed_from_u64(7);
        let values = Array2::from_shape_simple_fn((rows, variates), || random.random_range(-1.0..1.0));
        Series::new("noise", vec![], (0..variates).map(|variate| variate.to_string()).collect(), values).unwrap()
    }

    fn windows(series: &[Series], rows: std::ops::Range<usize>, horizon: usize) -> Windows<'_> {
        let shape = WindowShape::of(&series[0], 12, horizon).unwrap();
        Windows::new(series, &[rows], shape).unwrap()
    }

    #[test]
    fn as_many_windows_as_promised_lie_inside() -> Result<()> {
        let series = [noise(6000, 2)];
        let intervals = Intervals::calibrate(&Last(3), &windows(&series, 0..2000, 3), &[95.0, 80.0])?;
        assert_eq!((intervals.levels(), intervals.enough()), (&[80.0, 95.0][..], &[true, true][..]));
        let test = windows(&series, 2000..6000, 3);
        let mut inside = [0.0, 0.0];
        for window in test.iter() {
            let lookback = window.lookback.mapv(|value| value as f32);
            let widths = intervals.half_widths(lookback.view());
            for ((step, variate), target) in window.target.indexed_iter() {
                let error = (*target as f32 - lookback[[11, variate]]).abs();
                for (level, inside) in inside.iter_mut().enumerate() {
                    *inside += f64::from(u8::from(error <= widths[[level, step, variate]]));
                }
            }
        }
        let share = inside.map(|inside| 100.0 * inside / (test.len() * 6) as f64);
        assert!((share[0] - 80.0).abs() < 2.0 && (share[1] - 95.0).abs() < 1.0, "{share:?}");
        Ok(())
    }

    #[test]
    fn few_windows_that_overlap_reach_further_and_say_so() -> Result<()> {
        let series = [noise(60, 1)];
        let intervals = Intervals::calibrate(&Last(10), &windows(&series, 12..60, 10), &[50.0, 95.0])?;
        assert_eq!(intervals.enough(), [true, false]);
        // 39 windows, of which 39 stand for themselves one step ahead, and 3.9 ten steps ahead.
        assert_eq!(ranks(&[50.0, 95.0], 39, 39, 1), [20, 38]);
        assert_eq!(ranks(&[50.0, 95.0], 39, 39, 10), [25, 47]);
        Ok(())
    }

    #[test]
    fn a_wild_lookback_has_wider_intervals() -> Result<()> {
        let series = [noise(500, 1)];
        let intervals = Intervals::calibrate(&Last(3), &windows(&series, 12..500, 3), &[80.0])?;
        let width = |factor: f32| {
            let lookback = Array2::from_shape_fn((12, 1), |(row, _)| factor * if row % 2 == 0 { 1.0 } else { -1.0 });
            intervals.half_widths(lookback.view())[[0, 0, 0]]
        };
        assert!(width(2.0) > 1.5 * width(0.5) && width(0.0) > 0.0);
        Ok(())
    }

    #[test]
    fn what_is_saved_is_read_again_and_damage_is_named() -> Result<()> {
        let folder = tempfile::tempdir().unwrap();
        let series = [noise(300, 2)];
        let intervals = Intervals::calibrate(&Last(3), &windows(&series, 12..300, 3), &[80.0, 99.5])?;
        intervals.save(folder.path())?;
        assert_eq!(Intervals::load(folder.path(), 3, 2)?, intervals);
        assert!(Intervals::load(folder.path(), 4, 2).unwrap_err().to_string().contains("'widths'"));
        std::fs::write(folder.path().join(Intervals::FILE), "{}").unwrap();
        assert!(Intervals::load(folder.path(), 3, 2).is_err());
        Ok(())
    }

    #[test]
    fn a_level_is_a_share() {
        let series = [noise(60, 1)];
        for level in [0.0, 100.0, f64::NAN, -5.0] {
            assert!(Intervals::calibrate(&Last(1), &windows(&series, 12..60, 1), &[level]).is_err(), "{level}");
        }
    }
}
