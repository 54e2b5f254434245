//! Push a row, get a forecast: a pipeline on rows that arrive one by one.

#![allow(clippy::print_stdout)]

use std::collections::VecDeque;

use longcast::{
    Error, Result,
    data::{Series, Synthetic},
    forecaster::{Forecast, Pipeline, Plan},
    models,
    windows::SplitRule,
};
use ndarray::Array2;

/// The last rows that came, as many as a forecast is made from.
struct Stream {
    pipeline: Pipeline,
    recent: VecDeque<(chrono::NaiveDateTime, Vec<f64>)>,
}

impl Stream {
    fn new(pipeline: Pipeline) -> Self {
        Self { pipeline, recent: VecDeque::new() }
    }

    /// The forecast from the rows so far; none before there are enough of them.
    fn push(&mut self, time: chrono::NaiveDateTime, row: Vec<f64>) -> Result<Option<Forecast>> {
        let variates = self.pipeline.variates().len();
        if row.len() != variates {
            return Err(Error::Shape(format!("a row of {} values, not {variates}", row.len())));
        }
        // A row that no series takes would be in the way of all that follow.
        if row.iter().any(|value| !value.is_finite()) {
            return Err(Error::NotFinite(format!("a value of the row at {time} is no finite number")));
        }
        let lookback = self.pipeline.shape().lookback;
        self.recent.push_back((time, row));
        if self.recent.len() < lookback {
            return Ok(None);
        }
        self.recent.drain(..self.recent.len() - lookback);
        let times = self.recent.iter().map(|(time, _)| *time).collect();
        let values = Array2::from_shape_fn((lookback, variates), |(row, variate)| self.recent[row].1[variate]);
        let series = Series::new("stream", times, self.pipeline.variates().to_vec(), values)?;
        self.pipeline.forecast(&series).map(Some)
    }
}

fn main() -> Result<()> {
    let all = Synthetic::default().series()?;
    let known = all.rows(0..all.len() - 100);
    let split = SplitRule::Ratio([0.7, 0.2, 0.1]).split(known.len())?;
    let mut plan = Plan::new("ridge", 48, 6);
    plan.levels = vec![80.0];
    let mut stream = Stream::new(Pipeline::fit(&models::builtin(), &plan, &known, &split, &mut ())?);

    for row in known.len()..all.len() {
        let forecast = stream.push(all.timestamps()[row], all.values().row(row).to_vec())?;
        if let Some(Forecast { timestamps, values, intervals, .. }) = forecast {
            let (low, high) = (intervals[0].lower[[0, 0]], intervals[0].upper[[0, 0]]);
            println!("{}: {:.2}, between {low:.2} and {high:.2} in 80 % of all cases", timestamps[0], values[[0, 0]]);
        }
    }
    Ok(())
}
