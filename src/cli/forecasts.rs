//! A forecast as a table and as a picture.

use crate::{
    cli::Usage,
    data::{
        Series,
        loader::{NumberTable, written},
    },
    evaluator::rounded,
    forecaster::{Forecast, Pipeline},
    report::{Outlook, Panel},
};

/// Rows of the past on a picture, at least, where there are that many.
const PAST: usize = 48;

/// What follows `recent`, to six digits of the deviation of each variate: a forecast in single precision has no more.
///
/// # Errors
/// As for [`Pipeline::forecast`].
pub fn legible(pipeline: &Pipeline, recent: &Series) -> crate::Result<Forecast> {
    let mut forecast = pipeline.forecast(recent)?;
    let bounds = forecast.intervals.iter_mut().flat_map(|interval| [&mut interval.lower, &mut interval.upper]);
    for values in bounds.chain([&mut forecast.values]) {
        for (mut column, deviation) in values.columns_mut().into_iter().zip(pipeline.scaler().std()) {
            column.mapv_inplace(|value| rounded(value, *deviation, 6));
        }
    }
    Ok(forecast)
}

fn bound(variate: &str, end: &str, level: f64) -> String {
    format!("{variate}_{end}_{level}")
}

/// Refuses variates that are called what a bound of an interval would be.
pub fn check_names(variates: &[String], levels: &[f64]) -> Result<(), Usage> {
    let ends = |level: &f64| ["lower", "upper"].map(|end| (end, *level));
    let bounds = variates.iter().flat_map(|variate| levels.iter().flat_map(ends).map(move |end| (variate, end)));
    match bounds.map(|(variate, (end, level))| bound(variate, end, level)).find(|bound| variates.contains(bound)) {
        None => Ok(()),
        Some(name) => Err(Usage(format!(
            "'{name}' is a column and would be a bound of an interval as well: leave it out with --columns, or rename it"
        ))),
    }
}

/// The forecast of `targets` (all where there are none): a column each, and two more for each interval.
pub fn table(forecast: &Forecast, time_column: &str, targets: &[String]) -> NumberTable {
    let mut columns = Vec::new();
    for (place, variate) in forecast.variates.iter().enumerate() {
        if !targets.is_empty() && !targets.contains(variate) {
            continue;
        }
        columns.push((variate.clone(), forecast.values.column(place).to_vec()));
        for interval in &forecast.intervals {
            for (end, bound) in [("lower", &interval.lower), ("upper", &interval.upper)] {
                columns.push((self::bound(variate, end, interval.level), bound.column(place).to_vec()));
            }
        }
    }
    NumberTable { time: (time_column.to_string(), forecast.timestamps.clone()), columns }
}

/// The last rows of `series` and the forecast of `targets` (all where there are none), as a picture.
pub fn outlook(series: &Series, pipeline: &Pipeline, forecast: &Forecast, targets: &[String]) -> Outlook {
    let model = pipeline.model();
    let horizon = forecast.values.nrows();
    let from = series.len().saturating_sub((3 * horizon).max(PAST).max(2 * pipeline.season()));
    let panel = |(place, variate): (usize, &String)| Panel {
        variate: variate.clone(),
        past: series.variate(place)[from..].to_vec(),
        future: forecast.values.column(place).to_vec(),
        bands: forecast
            .intervals
            .iter()
            .map(|interval| (interval.lower.column(place).to_vec(), interval.upper.column(place).to_vec()))
            .collect(),
    };
    let wanted = |(_, variate): &(usize, &String)| targets.is_empty() || targets.contains(variate);
    let stamps: Vec<_> = match series.timestamps().is_empty() {
        true => vec![],
        false => series.timestamps()[from..].iter().chain(&forecast.timestamps).copied().collect(),
    };
    let levels: Vec<String> = forecast.intervals.iter().map(|interval| interval.level.to_string()).collect();
    let name = match levels.is_empty() {
        true => model.to_string(),
        false => format!("{model}, {} % intervals", levels.join(" and ")),
    };
    Outlook {
        title: format!("{}, the next {horizon} rows", series.name()),
        name,
        times: stamps.iter().map(|stamp| written(stamp, &stamps)).collect(),
        panels: series.variates().iter().enumerate().filter(wanted).map(panel).collect(),
    }
}
