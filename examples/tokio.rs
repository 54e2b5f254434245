//! Forecasts in an asynchronous program: fitting and forecasting are work for processors, and keep no task waiting.

#![allow(clippy::print_stdout)]

use std::sync::Arc;

use longcast::{
    Error, Result,
    data::{Series, Synthetic},
    forecaster::{Forecast, Pipeline, Plan},
    models,
    windows::SplitRule,
};
use tokio::task::spawn_blocking;

/// A forecast, made on a thread for work that takes long; the thread of the caller goes on with other tasks.
async fn forecast(pipeline: &Arc<Pipeline>, recent: Series) -> Result<Forecast> {
    let pipeline = Arc::clone(pipeline);
    spawn_blocking(move || pipeline.forecast(&recent)).await.map_err(|error| Error::Other(error.into()))?
}

async fn run() -> Result<()> {
    let series = Synthetic::default().series()?;
    let known = series.clone();
    let fitted = spawn_blocking(move || {
        let split = SplitRule::Ratio([0.7, 0.2, 0.1]).split(known.len())?;
        Pipeline::fit(&models::builtin(), &Plan::new("ridge", 96, 24), &known, &split, &mut ())
    });
    let pipeline = Arc::new(fitted.await.map_err(|error| Error::Other(error.into()))??);

    // Of the last rows, and of those before them.
    let before = series.rows(0..series.len() - 24);
    let (last, before) = (forecast(&pipeline, series), forecast(&pipeline, before));
    let (before, last) = (before.await?, last.await?);
    println!("{}: {:.2}", before.timestamps[0], before.values.row(0));
    println!("{}: {:.2}", last.timestamps[0], last.values.row(0));
    Ok(())
}

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(|error| Error::Other(error.into()))?;
    runtime.block_on(run())
}
