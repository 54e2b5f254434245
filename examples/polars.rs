//! A `DataFrame` in, a `DataFrame` out.

#![allow(clippy::print_stdout)]

use longcast::{
    Error, Result,
    data::{Series, Synthetic},
    forecaster::{Pipeline, Plan},
    models,
    windows::SplitRule,
};
use ndarray::Array2;
use polars::prelude::*;

fn failed(error: PolarsError) -> Error {
    Error::Other(error.into())
}

/// The frame as a series: `time` is its column of timestamps, every other one is a variate.
fn series(frame: &DataFrame, time: &str) -> Result<Series> {
    let micros = DataType::Datetime(TimeUnit::Microseconds, None);
    let times = frame.column(time).and_then(|column| column.cast(&micros)).map_err(failed)?;
    let times = times.datetime().map_err(failed)?;
    let times: Option<Vec<_>> =
        times.physical().iter().map(|micros| chrono::DateTime::from_timestamp_micros(micros?)).collect();
    let times = times.ok_or_else(|| Error::other(format!("a timestamp in '{time}' is missing")))?;
    let (mut names, mut columns) = (vec![], vec![]);
    for column in frame.columns().iter().filter(|column| column.name() != time) {
        names.push(column.name().to_string());
        let values = column.cast(&DataType::Float64).map_err(failed)?;
        // A missing value becomes NaN, which a series refuses by name.
        columns.extend(values.f64().map_err(failed)?.iter().map(|value| value.unwrap_or(f64::NAN)));
    }
    let values = Array2::from_shape_vec((names.len(), frame.height()), columns).expect("columns are equally long");
    let times = times.iter().map(chrono::DateTime::naive_utc).collect();
    Series::new("frame", times, names, values.reversed_axes())
}

/// The forecast as a frame with the same columns.
fn forecast(pipeline: &Pipeline, recent: &DataFrame, time: &str) -> Result<DataFrame> {
    let forecast = pipeline.forecast(&series(recent, time)?)?;
    let times = DatetimeChunked::from_naive_datetime(time.into(), forecast.timestamps, TimeUnit::Microseconds);
    let mut columns = vec![times.into_column()];
    for (name, values) in forecast.variates.iter().zip(forecast.values.columns()) {
        columns.push(Column::new(name.as_str().into(), values.to_vec()));
    }
    DataFrame::new(pipeline.shape().horizon, columns).map_err(failed)
}

fn main() -> Result<()> {
    // Stands for a frame of one's own.
    let known = Synthetic::default().series()?;
    let times = known.timestamps().iter().copied();
    let mut columns =
        vec![DatetimeChunked::from_naive_datetime("time".into(), times, TimeUnit::Microseconds).into_column()];
    for (place, name) in known.variates().iter().enumerate() {
        columns.push(Column::new(name.as_str().into(), known.variate(place)));
    }
    let frame = DataFrame::new(known.len(), columns).map_err(failed)?;

    let series = series(&frame, "time")?;
    let split = SplitRule::Ratio([0.7, 0.2, 0.1]).split(series.len())?;
    let pipeline = Pipeline::fit(&models::builtin(), &Plan::new("ridge", 96, 24), &series, &split, &mut ())?;
    println!("{}", forecast(&pipeline, &frame, "time")?);
    Ok(())
}
