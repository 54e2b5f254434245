//! Scores of intervals: whether they hold what they promise, and at what width.

use ndarray::ArrayView2;
use serde::{Deserialize, Serialize};

use super::Yardstick;
use crate::forecaster::Intervals;

/// The scores of all intervals of a forecaster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IntervalScores {
    /// One of each level, ascending.
    pub levels: Vec<LevelScores>,
    /// Weighted quantile loss in scaled units: twice the pinball loss of the forecast as the median and of both ends of
    /// each interval, summed over all values and divided by the sum of their absolute values, the mean over these
    /// quantiles (Salinas et al., DeepAR, International Journal of Forecasting 36, 2020).
    pub weighted_quantile_loss: Option<f64>,
}

/// The scores of the intervals of one level.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LevelScores {
    /// In percent: the share of values that should lie inside.
    pub level: f64,
    /// In percent: the share that does.
    pub coverage: f64,
    /// The mean width, scaled units.
    pub width: f64,
    /// Mean scaled interval score: width and `2/α` times the distance of what lies outside, divided by the seasonal
    /// naive error of the training rows, as in the M4 competition (Makridakis et al., 2020; Gneiting & Raftery, JASA
    /// 102, 2007, eq. 43). Variates without such an error are left out; `None` where all are.
    pub msis: Option<f64>,
}

pub(super) struct Sums {
    /// Of each level: values inside, widths, and scores of variates with a yardstick.
    inside: Vec<usize>,
    width: Vec<f64>,
    score: Vec<f64>,
    /// Pinball losses of the median, and of both ends of each level.
    median: f64,
    ends: Vec<[f64; 2]>,
    absolute: f64,
    values: usize,
    measured: usize,
}

impl Sums {
    pub(super) fn new(levels: usize) -> Self {
        Self {
            inside: vec![0; levels],
            width: vec![0.0; levels],
            score: vec![0.0; levels],
            median: 0.0,
            ends: vec![[0.0; 2]; levels],
            absolute: 0.0,
            values: 0,
            measured: 0,
        }
    }

    /// Adds the intervals of one window; all values are scaled.
    pub(super) fn window(
        &mut self,
        intervals: &Intervals,
        lookback: ArrayView2<'_, f32>,
        forecast: ArrayView2<'_, f32>,
        target: ArrayView2<'_, f32>,
        yardstick: &Yardstick,
    ) {
        let widths = intervals.half_widths(lookback);
        for ((step, variate), target) in target.indexed_iter() {
            let (target, centre) = (f64::from(*target), f64::from(forecast[[step, variate]]));
            // Both in the units of the data.
            let naive = yardstick.absolute[variate] / yardstick.scaler.std()[variate];
            self.values += 1;
            self.absolute += target.abs();
            self.median += pinball(0.5, target, centre);
            self.measured += usize::from(naive > 0.0);
            for (index, level) in intervals.levels().iter().enumerate() {
                let half = f64::from(widths[[index, step, variate]]);
                let (lower, upper) = (centre - half, centre + half);
                let outside = (lower - target).max(target - upper).max(0.0);
                let alpha = 1.0 - level / 100.0;
                self.inside[index] += usize::from(outside == 0.0);
                self.width[index] += 2.0 * half;
                self.ends[index][0] += pinball(alpha / 2.0, target, lower);
                self.ends[index][1] += pinball(1.0 - alpha / 2.0, target, upper);
                if naive > 0.0 {
                    self.score[index] += (2.0 * half + 2.0 / alpha * outside) / naive;
                }
            }
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        for level in 0..self.inside.len() {
            self.inside[level] += other.inside[level];
            self.width[level] += other.width[level];
            self.score[level] += other.score[level];
            self.ends[level][0] += other.ends[level][0];
            self.ends[level][1] += other.ends[level][1];
        }
        self.median += other.median;
        self.absolute += other.absolute;
        self.values += other.values;
        self.measured += other.measured;
    }

    pub(super) fn scores(&self, levels: &[f64]) -> IntervalScores {
        let values = self.values as f64;
        let of_level = |(index, level): (usize, &f64)| LevelScores {
            level: *level,
            coverage: 100.0 * self.inside[index] as f64 / values,
            width: self.width[index] / values,
            msis: (self.measured > 0).then(|| self.score[index] / self.measured as f64),
        };
        let losses = self.median + self.ends.iter().map(|[lower, upper]| lower + upper).sum::<f64>();
        let quantiles = 1.0 + 2.0 * levels.len() as f64;
        IntervalScores {
            levels: levels.iter().enumerate().map(of_level).collect(),
            weighted_quantile_loss: (self.absolute > 0.0).then(|| 2.0 * losses / self.absolute / quantiles),
        }
    }
}

/// Twice of it is the absolute error where `quantile` is the median.
fn pinball(quantile: f64, value: f64, bound: f64) -> f64 {
    (value - bound) * (quantile - if value < bound { 1.0 } else { 0.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_counts_what_lies_inside_and_what_is_missed() {
        let mut sums = Sums::new(1);
        // Two values around 0 with half a width of 1, of which one lies 0.5 outside; seasonal naive error 2.
        sums.inside[0] = 1;
        sums.width[0] = 4.0;
        sums.score[0] = (2.0 + (2.0 + 2.0 / 0.2 * 0.5)) / 2.0;
        (sums.values, sums.measured, sums.absolute) = (2, 2, 2.5);
        sums.median = pinball(0.5, 1.0, 0.0) + pinball(0.5, -1.5, 0.0);
        sums.ends[0] =
            [pinball(0.1, 1.0, -1.0) + pinball(0.1, -1.5, -1.0), pinball(0.9, 1.0, 1.0) + pinball(0.9, -1.5, 1.0)];
        let scores = sums.scores(&[80.0]);
        assert_eq!((scores.levels[0].coverage, scores.levels[0].width), (50.0, 2.0));
        assert!((scores.levels[0].msis.unwrap() - 2.25).abs() < 1e-12);
        // 0.5·2.5, 0.1·2 + 0.9·0.5, 0.9·0 + 0.1·2.5.
        assert!((scores.weighted_quantile_loss.unwrap() - 2.0 * (1.25 + 0.65 + 0.25) / 2.5 / 3.0).abs() < 1e-12);
    }
}
