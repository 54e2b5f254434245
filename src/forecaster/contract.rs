//! The laws every forecaster keeps, as a check that anyone can run on theirs.

use std::{fs, ops::ControlFlow, path::Path};

use ndarray::{Array2, Array3, Axis, s};

use super::{BuildContext, Forecaster};
use crate::{
    Error, Result,
    data::{Calendar, Series},
    windows::{Batch, Order, Part, SplitRule, WindowShape, Windows},
};

/// The lookback and horizon that [`check`] uses.
pub const SIZES: (usize, usize) = (48, 12);

/// Runs a forecaster through the laws of the [`Forecaster`] trait; `build` makes a new one.
///
/// - A forecast is `[batch, horizon, variates]` and finite, on two variates and on one, on a season
///   with noise and on a constant.
/// - Before `fit` there is a forecast or [`Error::NotFitted`]; never a panic, never another error.
/// - The same seed gives the same bits.
/// - A lookback alone and in a batch gives the same bits.
/// - `save` then `load` gives the same bits, and `fit` after `load` works.
/// - `refit` keeps the shape of forecasts, and the bits too where it says that it did nothing or was stopped.
/// - A lookback that is too short is an error.
///
/// `dir` is an empty folder to save into.
///
/// # Errors
/// The first law that is broken, in words; or whatever error the forecaster gave.
pub fn check(build: &dyn Fn(&BuildContext) -> Result<Box<dyn Forecaster>>, dir: &Path) -> Result<()> {
    for (name, series) in examples()? {
        check_on(build, &series, dir).map_err(|error| Error::other(format!("on {name}: {error}")))?;
    }
    Ok(())
}

fn check_on(build: &dyn Fn(&BuildContext) -> Result<Box<dyn Forecaster>>, series: &Series, dir: &Path) -> Result<()> {
    let (lookback, horizon) = SIZES;
    let shape = WindowShape::of(series, lookback, horizon)?;
    let context = BuildContext { season: 12, ..BuildContext::new(shape) };
    let split = SplitRule::Ratio([0.6, 0.2, 0.2]).split(series.len())?;
    let all = std::slice::from_ref(series);
    let windows = |part| Windows::new(all, &[split.targets(part, lookback)], shape);
    let (train, valid, test) = (windows(Part::Train)?, windows(Part::Valid)?, windows(Part::Test)?);

    let mut batches = test.batches(5, Order::InTime);
    let batch = batches.next_batch().ok_or_else(|| Error::other("the example has no test window"))?;

    let mut first = build(&context)?;
    match first.predict(&batch.lookback) {
        Ok(_) | Err(Error::NotFitted(_)) => {}
        Err(error) => return broken(format!("before fit it says '{error}' and not that it is not fitted")),
    }
    first.fit(&train, &valid, &mut ())?;
    let forecast = first.predict(&batch.lookback)?;
    let expected = (batch.target.dim().0, horizon, shape.variates);
    if forecast.dim() != expected {
        return broken(format!("the forecast is {:?}, not {expected:?}", forecast.dim()));
    }
    if forecast.iter().any(|value| !value.is_finite()) {
        return broken("a forecast is not finite");
    }

    let mut second = build(&context)?;
    second.fit(&train, &valid, &mut ())?;
    same(&forecast, &second.predict(&batch.lookback)?, "fitted twice with one seed")?;

    // A method may be done before it asks whether to end.
    if let Err(Error::Interrupted) = second.refit(&train, &mut |_| ControlFlow::Break(())) {
        same(&forecast, &second.predict(&batch.lookback)?, "before and after a refit that was stopped")?;
    }
    let refitted = second.refit(&train, &mut ())?;
    let after = second.predict(&batch.lookback)?;
    if !refitted {
        same(&forecast, &after, "before and after a refit that did nothing")?;
    } else if after.dim() != expected || after.iter().any(|value| !value.is_finite()) {
        return broken("a forecast after a refit has another shape or is not finite");
    }

    for index in 0..expected.0 {
        let alone = first.predict(&only(batch, index).lookback)?;
        let within = forecast.slice(s![index..=index, .., ..]).to_owned();
        same(&within, &alone, "alone and in a batch")?;
    }

    let folder = dir.join("saved");
    fs::create_dir_all(&folder).map_err(Error::io("make the folder", &folder))?;
    first.save(&folder)?;
    let mut loaded = build(&context)?;
    loaded.load(&folder)?;
    same(&forecast, &loaded.predict(&batch.lookback)?, "saved and loaded")?;
    loaded.fit(&train, &valid, &mut ())?;
    fs::remove_dir_all(&folder).map_err(Error::io("remove the folder", &folder))?;

    let mut short = only(batch, 0).lookback;
    short.values = short.values.slice(s![.., ..0, ..]).to_owned();
    short.past_time = short.past_time.slice(s![.., ..0, ..]).to_owned();
    match first.predict(&short) {
        Err(_) => Ok(()),
        Ok(_) => broken("a lookback without rows is not refused"),
    }
}

fn only(batch: &Batch, index: usize) -> Batch {
    let one = |array: &Array3<f32>| array.slice(s![index..=index, .., ..]).to_owned();
    let mut single = batch.clone();
    single.lookback.values = one(&batch.lookback.values);
    single.lookback.past_time = one(&batch.lookback.past_time);
    single.lookback.future_time = one(&batch.lookback.future_time);
    single.target = one(&batch.target);
    single
}

fn same(left: &Array3<f32>, right: &Array3<f32>, when: &str) -> Result<()> {
    let bits = |array: &Array3<f32>| array.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    match left.len_of(Axis(1)) == right.len_of(Axis(1)) && bits(left) == bits(right) {
        true => Ok(()),
        false => broken(format!("{when}, the forecasts are not equal to the last bit")),
    }
}

fn broken<T>(law: impl Into<String>) -> Result<T> {
    Err(Error::other(law))
}

fn examples() -> Result<[(&'static str, Series); 3]> {
    const ROWS: usize = 480;
    // A season of 12 and a deterministic stand-in for noise.
    let value = |row: usize, variate: usize| {
        let angle = (row + 3 * variate) as f64 / 12.0 * std::f64::consts::TAU;
        angle.sin() + 0.1 * ((row * 7919 + variate * 104_729) % 101) as f64 / 101.0
    };
    let series = |name: &'static str, variates: usize, value: &dyn Fn(usize, usize) -> f64| -> Result<_> {
        let values = Array2::from_shape_fn((ROWS, variates), |(row, variate)| value(row, variate));
        let start = chrono::DateTime::UNIX_EPOCH.naive_utc();
        let timestamps = (0..ROWS).map(|row| start + chrono::TimeDelta::hours(row as i64)).collect();
        let names = (0..variates).map(|variate| format!("v{variate}")).collect();
        Ok((name, Series::new(name, timestamps, names, values)?.with_calendar(Calendar::Hourly)))
    };
    Ok([
        series("two variates with a season", 2, &value)?,
        series("one variate", 1, &value)?,
        series("a constant", 2, &|_, variate| variate as f64)?,
    ])
}
