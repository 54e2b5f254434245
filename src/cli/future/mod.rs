//! Forecasts of one's own data: `longcast forecast`, `fit`, `predict` and `backtest`.

pub mod backtest;
mod choice;
pub mod fit;
pub mod forecast;
mod output;
pub mod predict;
mod source;

use std::time::Duration;

use clap::Args;

use crate::forecaster::{Device, Intervals};

/// Which model forecasts, and how it is made.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Model")]
pub struct ModelArgs {
    /// A model by name (see `longcast models`); without it the one that is best on the last rows
    #[arg(long)]
    model: Option<String>,
    /// Choose among networks too, as long as there is time, e.g. 60s; without it among those that take none
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, conflicts_with = "model")]
    within: Option<Duration>,
    /// Rows a forecast is made from; by default a few seasons, or what the horizon asks for
    #[arg(long, value_name = "ROWS")]
    lookback: Option<usize>,
    /// The preset that params start from; by default the one with the name of the model, if there is one
    #[arg(long, value_name = "NAME|none", requires = "model")]
    preset: Option<String>,
    /// Set a param of the model, e.g. penalty=0.1
    #[arg(long, value_name = "KEY=VALUE", requires = "model")]
    set: Vec<String>,
    /// Intervals that hold the truth in so many percent of all cases
    #[arg(long, value_name = "PERCENT,...", value_delimiter = ',', default_values_t = [80.0, 95.0], value_parser = level)]
    level: Vec<f64>,
    /// All that is drawn at random follows from this
    #[arg(long, default_value_t = 2021)]
    seed: u64,
    /// Where networks compute: cpu, or cuda in a build that has it
    #[arg(long, default_value_t)]
    device: Device,
}

fn level(text: &str) -> Result<f64, String> {
    let level = text.parse().map_err(|error| format!("{error}"))?;
    Intervals::ordered(&[level]).map(|_| level).map_err(|error| error.to_string())
}
