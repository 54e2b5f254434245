//! Scores: a forecaster against every window, batch by batch, with nothing kept.
//!
//! This layer knows the contract and windows; not which model it scores, nor where data came from.

mod example;
mod intervals;
mod metrics;
mod selection;
mod yardstick;

use std::ops::{ControlFlow, Range};

use ndarray::{Array3, Axis};
use rayon::prelude::*;

pub use example::{Example, examples, rounded};
pub use intervals::{IntervalScores, LevelScores};
pub use metrics::{Curve, RawScores, Scores, VariateScores};
pub use selection::{Chosen, Tried, Verdict, choose};
pub use yardstick::Yardstick;

use crate::{
    Error, Result,
    data::Series,
    forecaster::{Forecaster, Intervals, Pipeline},
    windows::{Lookback, Window, Windows},
};
use metrics::Sums;

/// Windows whose errors are added up together. Sums of blocks are added in the order of blocks, so
/// a score depends on this number, but not on the batch size or the number of threads.
const BLOCK: usize = 64;

/// The most windows one call of `predict` gets, unless the caller says otherwise.
pub const BATCH: usize = 32;

/// What came of an evaluation.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// Of the forecasts.
    pub scores: Scores,
    /// Of the intervals around them, where there are some.
    pub intervals: Option<IntervalScores>,
}

/// Scores `forecaster`, and `intervals` around its forecasts, on every window of `windows`, each exactly once.
///
/// `windows` are cut from scaled series; `raw` are the same series in their own units and
/// `yardsticks` what their training rows say about them, in the same order. At most `batch`
/// windows are forecast at once; this changes memory and time, and no bit of the scores.
/// `progress` hears how many windows are done, and may stop.
///
/// # Errors
/// If the forecaster fails, its forecast has the wrong shape or is not finite, or `progress` stops
/// ([`Error::Interrupted`]).
pub fn evaluate(
    forecaster: &dyn Forecaster,
    intervals: Option<&Intervals>,
    windows: &Windows<'_>,
    raw: &[Series],
    yardsticks: &[Yardstick],
    batch: usize,
    progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<Evaluation> {
    if raw.len() != windows.series().len() || yardsticks.len() != raw.len() {
        return Err(Error::Shape("scaled series, raw series and yardsticks are not the same in number".into()));
    }
    let scoring = Scoring { forecaster, intervals, windows, raw, yardsticks, batch: batch.clamp(1, BLOCK) };
    let (mut total, mut of_intervals) = scoring.nothing();
    let blocks = windows.len().div_ceil(BLOCK);
    let together = rayon::current_num_threads().max(1);
    for first in (0..blocks).step_by(together) {
        let block = |index: usize| scoring.block(index * BLOCK..((index + 1) * BLOCK).min(windows.len()));
        let sums: Vec<_> = (first..(first + together).min(blocks)).into_par_iter().map(block).collect();
        for sums in sums {
            let (sums, block) = sums?;
            total.add(&sums);
            of_intervals.add(&block);
        }
        if progress(((first + together) * BLOCK).min(windows.len())).is_break() {
            return Err(Error::Interrupted);
        }
    }
    let names = windows.series()[0].variates();
    let intervals = intervals.map(|intervals| of_intervals.scores(intervals.levels()));
    Ok(Evaluation { scores: total.scores(names), intervals })
}

/// Scores a pipeline, and its intervals if it has some, on every window whose targets lie in `rows` of `series`; MASE and RMSSE are relative to the
/// seasonal naive errors in the rows `train`.
///
/// # Errors
/// As for [`evaluate`], and if the rows are too few for a window.
pub fn evaluate_pipeline(
    pipeline: &Pipeline,
    series: &Series,
    rows: Range<usize>,
    train: Range<usize>,
    progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<Evaluation> {
    let scaled = [pipeline.scaled(series)?];
    let windows = Windows::new(&scaled, &[rows], pipeline.shape())?;
    let yardstick = Yardstick::new(series, train, pipeline.season(), pipeline.scaler().clone());
    let raw = std::slice::from_ref(series);
    evaluate(pipeline.forecaster(), pipeline.intervals(), &windows, raw, &[yardstick], BATCH, progress)
}

struct Scoring<'a> {
    forecaster: &'a dyn Forecaster,
    intervals: Option<&'a Intervals>,
    windows: &'a Windows<'a>,
    raw: &'a [Series],
    yardsticks: &'a [Yardstick],
    batch: usize,
}

impl Scoring<'_> {
    /// The sums of no window yet.
    fn nothing(&self) -> (Sums, intervals::Sums) {
        let shape = self.windows.shape();
        let levels = self.intervals.map_or(0, |intervals| intervals.levels().len());
        (Sums::new(shape.horizon, shape.variates), intervals::Sums::new(levels))
    }

    fn block(&self, range: Range<usize>) -> Result<(Sums, intervals::Sums)> {
        let (mut sums, mut of_intervals) = self.nothing();
        let mut batches = self.windows.batches_in(range.clone(), self.batch);
        let mut next = range.start;
        while let Some(batch) = batches.next_batch() {
            let forecasts = self.predict(&batch.lookback)?;
            for (index, forecast) in forecasts.axis_iter(Axis(0)).enumerate() {
                let window = self.windows.get(next);
                let yardstick = &self.yardsticks[window.series];
                sums.window(forecast, &window, &self.raw[window.series], yardstick)
                    .map_err(|position| self.not_finite(&window, position))?;
                if let Some(intervals) = self.intervals {
                    let [lookback, target] =
                        [&batch.lookback.values, &batch.target].map(|values| values.index_axis(Axis(0), index));
                    of_intervals.window(intervals, lookback, forecast, target, yardstick);
                }
                next += 1;
            }
        }
        Ok((sums, of_intervals))
    }

    fn predict(&self, lookback: &Lookback) -> Result<Array3<f32>> {
        let shape = self.windows.shape();
        let forecasts = self.forecaster.predict(lookback)?;
        let expected = (lookback.values.dim().0, shape.horizon, shape.variates);
        match forecasts.dim() == expected {
            true => Ok(forecasts),
            false => Err(Error::Shape(format!("the forecast is {:?}, not {expected:?}", forecasts.dim()))),
        }
    }

    fn not_finite(&self, window: &Window<'_>, (step, variate): (usize, usize)) -> Error {
        let series = &self.raw[window.series];
        Error::NotFinite(format!(
            "{}: the forecast of '{}' from row {}, step {}, is not a finite number",
            series.name(),
            series.variates()[variate],
            window.row,
            step + 1
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use ndarray::Array2;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        forecaster::{BuildContext, Registry},
        models,
        windows::{Part, Scaler, SplitRule, WindowShape},
    };

    struct Setting {
        raw: Series,
        scaled: Series,
        yardstick: Yardstick,
        targets: std::ops::Range<usize>,
    }

    fn setting(values: Array2<f64>, season: usize) -> Setting {
        let names = (0..values.ncols()).map(|variate| variate.to_string()).collect();
        let raw = Series::new("s", vec![], names, values).unwrap();
        let split = SplitRule::Ratio([0.5, 0.1, 0.4]).split(raw.len()).unwrap();
        let scaler = Scaler::fit(&raw, &split);
        let scaled = scaler.transform(&raw).unwrap();
        let yardstick = Yardstick::new(&raw, split.train.clone(), season, scaler);
        Setting { targets: split.targets(Part::Test, 4), raw, scaled, yardstick }
    }

    fn score(setting: &Setting, model: &str, horizon: usize, batch: usize) -> Result<Scores> {
        let shape = WindowShape::of(&setting.scaled, 4, horizon)?;
        let windows = Windows::new(from_ref(&setting.scaled), from_ref(&setting.targets), shape)?;
        let models: Registry = models::builtin();
        let forecaster = models.build(model, &Default::default(), &BuildContext::new(shape))?;
        let raw = from_ref(&setting.raw);
        let go_on = &mut |_| ControlFlow::Continue(());
        let evaluation = evaluate(&*forecaster, None, &windows, raw, from_ref(&setting.yardstick), batch, go_on)?;
        Ok(evaluation.scores)
    }

    fn wave(rows: usize, variates: usize) -> Array2<f64> {
        Array2::from_shape_fn((rows, variates), |(row, variate)| ((row * 7 + variate * 3) % 11) as f64 - 2.5)
    }

    #[test]
    fn scores_are_those_computed_by_hand() -> Result<()> {
        // Training rows 0 2 0 2 0: mean 0.8, deviation sqrt(0.96). One season is one step.
        let values = [0.0, 2.0, 0.0, 2.0, 0.0, 5.0, 1.0, 2.0, 4.0, 4.0];
        let setting = setting(Array2::from_shape_vec((10, 1), values.to_vec()).unwrap(), 1);
        // Test rows 6.. at horizon 2: repeat says 5 5 | 1 1 | 2 2 for 1 2 | 2 4 | 4 4.
        let scores = score(&setting, "repeat", 2, 1)?;
        let close = |left: f64, right: f64| (left - right).abs() < 1e-6 * right;
        assert!(close(scores.raw.mae, (4.0 + 3.0 + 1.0 + 3.0 + 2.0 + 2.0) / 6.0), "{scores:?}");
        assert!(close(scores.raw.mse, (16.0 + 9.0 + 1.0 + 9.0 + 4.0 + 4.0) / 6.0));
        assert!(close(scores.mae, scores.raw.mae / 0.96f64.sqrt()));
        assert!(close(scores.mse, scores.raw.mse / 0.96));
        // The yardstick is 2, and 4 squared.
        assert!(close(scores.raw.mase.unwrap(), scores.raw.mae / 2.0));
        let rmsse = ((12.5f64 / 4.0).sqrt() + (5.0f64 / 4.0).sqrt() + (4.0f64 / 4.0).sqrt()) / 3.0;
        assert!(close(scores.raw.rmsse.unwrap(), rmsse));
        assert!(close(scores.raw.wape.unwrap(), 100.0 * 15.0 / 17.0));
        assert!(close(scores.raw.mape.unwrap(), 100.0 * (4.0 + 1.5 + 0.5 + 0.75 + 0.5 + 0.5) / 6.0));
        let smape = 200.0 * (4.0 / 6.0 + 3.0 / 7.0 + 1.0 / 3.0 + 3.0 / 5.0 + 2.0 / 6.0 + 2.0 / 6.0) / 6.0;
        assert!(close(scores.raw.smape, smape));
        assert!(close(scores.per_step.mse[1], scores.mse * 6.0 / 3.0 * 22.0 / 43.0));
        Ok(())
    }

    #[test]
    fn the_batch_size_changes_no_bit() -> Result<()> {
        let setting = setting(wave(1000, 3), 1);
        let reference = score(&setting, "mean", 5, 1)?;
        for batch in [2, 7, 32, 1000] {
            assert_eq!(score(&setting, "mean", 5, batch)?, reference);
        }
        Ok(())
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() -> Result<()> {
        let setting = setting(wave(1000, 3), 1);
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| score(&setting, "mean", 5, 16))
        };
        let reference = with(1)?;
        for threads in [2, 5] {
            assert_eq!(with(threads)?, reference);
        }
        Ok(())
    }

    struct NotANumber(WindowShape);

    impl Forecaster for NotANumber {
        fn fit(&mut self, _: &Windows<'_>, _: &Windows<'_>, _: &mut dyn crate::forecaster::FitObserver) -> Result<()> {
            Ok(())
        }
        fn predict(&self, lookback: &Lookback) -> Result<Array3<f32>> {
            let mut forecast = Array3::zeros((lookback.values.dim().0, self.0.horizon, self.0.variates));
            forecast[[0, 1, 2]] = f32::NAN;
            Ok(forecast)
        }
        fn save(&self, _: &std::path::Path) -> Result<()> {
            Ok(())
        }
        fn load(&mut self, _: &std::path::Path) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_forecast_that_is_not_a_number_is_never_averaged_away() -> Result<()> {
        let setting = setting(wave(100, 3), 1);
        let shape = WindowShape::of(&setting.scaled, 4, 2)?;
        let windows = Windows::new(from_ref(&setting.scaled), from_ref(&setting.targets), shape)?;
        let raw = from_ref(&setting.raw);
        let go_on = &mut |_| ControlFlow::Continue(());
        let error =
            evaluate(&NotANumber(shape), None, &windows, raw, from_ref(&setting.yardstick), 8, go_on).unwrap_err();
        assert_eq!(error.to_string(), "s: the forecast of '2' from row 60, step 2, is not a finite number");
        Ok(())
    }

    #[test]
    fn what_is_not_defined_is_none() -> Result<()> {
        let setting = setting(Array2::zeros((50, 2)), 1);
        let scores = score(&setting, "repeat", 2, 8)?;
        assert_eq!((scores.mse, scores.raw.smape), (0.0, 0.0));
        assert_eq!((scores.raw.mase, scores.raw.rmsse, scores.raw.mape, scores.raw.wape), (None, None, None, None));
        Ok(())
    }

    proptest! {
        #[test]
        fn laws_of_the_metrics(
            values in proptest::collection::vec(-100.0..100.0f64, 80),
            factor in 0.01..100.0f64,
            model in prop_oneof!["repeat", "mean", "drift"],
        ) {
            let values = Array2::from_shape_vec((40, 2), values).unwrap();
            let one = score(&setting(values.clone(), 3), &model, 3, 4).unwrap();
            let other = score(&setting(values * factor, 3), &model, 3, 4).unwrap();
            let close = |left: f64, right: f64| (left - right).abs() <= 1e-4 * right.abs().max(1e-9);

            prop_assert!(one.mse >= 0.0 && one.mae >= 0.0 && one.raw.smape >= 0.0 && one.raw.smape <= 200.0);
            prop_assert!(one.mse >= one.mae * one.mae * (1.0 - 1e-12));
            prop_assert!(one.raw.mse >= one.raw.mae * one.raw.mae * (1.0 - 1e-12));
            // Scaled units, and ratios of like to like, do not see the unit of the data.
            prop_assert!(close(one.mse, other.mse) && close(one.mae, other.mae));
            prop_assert!(close(one.raw.mase.unwrap(), other.raw.mase.unwrap()));
            prop_assert!(close(one.raw.rmsse.unwrap(), other.raw.rmsse.unwrap()));
            prop_assert!(close(one.raw.wape.unwrap(), other.raw.wape.unwrap()));
            // Raw errors scale with the data, squared ones with its square.
            prop_assert!(close(one.raw.mae * factor, other.raw.mae));
            prop_assert!(close(one.raw.mse * factor * factor, other.raw.mse));
            // The parts add up to the whole.
            let steps = one.per_step.mse.iter().sum::<f64>() / 3.0;
            let variates = one.per_variate.iter().map(|variate| variate.mse).sum::<f64>() / 2.0;
            prop_assert!(close(steps, one.mse) && close(variates, one.mse));
        }
    }
}
