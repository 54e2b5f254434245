//! Cells that cannot be right.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::Serialize;

use crate::{Error, Result, benchmark::Record};

/// What is wrong with which cell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Warning {
    pub cell: String,
    pub problem: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.cell, self.problem)
    }
}

/// What no honest pair of scores shows: the mean of squares is at least the square of the mean,
/// and neither is negative or without end. `precision` is half of the last printed digit of each, or 0.
pub fn impossible(mse: f64, mae: f64, precision: [f64; 2]) -> Option<String> {
    let least = (mae - precision[1]).max(0.0).powi(2);
    // The last bits of two sums need not agree.
    let most = (mse + precision[0]) * (1.0 + 1e-9);
    if !(mse.is_finite() && mae.is_finite()) {
        Some(format!("MSE {mse}, MAE {mae} are not finite numbers"))
    } else if mse < 0.0 || mae < 0.0 {
        Some(format!("MSE {mse}, MAE {mae}: an error is negative"))
    } else if most < least {
        Some(format!("MSE {mse} is below the square of MAE {mae}"))
    } else {
        None
    }
}

/// Everything in `records` that cannot be, or that makes a row of the table unfair.
pub fn lint(records: &[Record]) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let mut warn = |record: &Record, problem: String| {
        warnings.push(Warning { cell: record.task.to_string(), problem });
    };
    let mut seen = BTreeSet::new();
    let mut scored: BTreeMap<(&str, usize, usize), (usize, &str)> = BTreeMap::new();
    for record in records {
        let (task, scores) = (&record.task, &record.scores);
        if !seen.insert((&task.dataset, &task.name, task.lookback, task.horizon, task.seed)) {
            warn(record, format!("two records of seed {}; the table shows their mean", task.seed));
        }
        if let Some(problem) = impossible(scores.mse, scores.mae, [0.0; 2]) {
            warn(record, problem);
        }
        if (scores.rmse - scores.mse.sqrt()).abs() > 1e-9 * scores.rmse.abs() {
            warn(record, format!("RMSE {} is not the root of MSE {}", scores.rmse, scores.mse));
        }
        let steps = scores.per_step.mse.len();
        let by_step = scores.per_step.mse.iter().sum::<f64>() / steps as f64;
        if steps != task.horizon || (by_step - scores.mse).abs() > 1e-9 * scores.mse.abs() {
            warn(record, format!("MSE {} is not the mean of its {steps} steps, {by_step}", scores.mse));
        }
        if record.windows_scored == 0 {
            warn(record, "no window was scored".into());
        }
        if record.windows_scored < record.windows_possible && task.protocol.drop_last == 0 {
            warn(record, format!("{} of {} windows were scored", record.windows_scored, record.windows_possible));
        }
        let place = (task.dataset.as_str(), task.lookback, task.horizon);
        let (windows, first) = *scored.entry(place).or_insert((record.windows_scored, &task.name));
        if windows != record.windows_scored {
            let windows_here = record.windows_scored;
            warn(record, format!("scored on {windows_here} windows, but {first} beside it on {windows}"));
        }
    }
    warnings
}

/// Everything in a copied table that cannot be: CSV with a column `mse` and a column `mae`, whatever the others
/// are. Half of the last printed digit of each number is given to it.
///
/// # Errors
/// If the text is no such CSV; the line is named.
pub fn lint_table(text: &str) -> Result<Vec<Warning>> {
    let mut reader = ::csv::ReaderBuilder::new().trim(::csv::Trim::All).from_reader(text.as_bytes());
    let unreadable = |error: ::csv::Error| Error::other(error.to_string());
    let header = reader.headers().map_err(unreadable)?.clone();
    let column = |name: &str| {
        let found = header.iter().position(|column| column.eq_ignore_ascii_case(name));
        found.ok_or_else(|| Error::other(format!("no column '{name}': a table has one row a cell, with mse and mae")))
    };
    let (mse, mae) = (column("mse")?, column("mae")?);
    let mut warnings = Vec::new();
    for row in reader.records() {
        let row = row.map_err(unreadable)?;
        let line = row.position().map_or(0, ::csv::Position::line);
        let place: Vec<&str> =
            row.iter().enumerate().filter(|(index, _)| ![mse, mae].contains(index)).map(|(_, text)| text).collect();
        let mut warn = |problem| {
            warnings.push(Warning { cell: format!("line {line} ({})", place.join(", ")), problem });
        };
        let printed = [&row[mse], &row[mae]];
        if printed.contains(&"") {
            continue;
        }
        let [Ok(mse), Ok(mae)] = printed.map(str::parse::<f64>) else {
            warn(format!("'{}' and '{}' are not two numbers", printed[0], printed[1]));
            continue;
        };
        let digits = printed.map(|text| text.split_once('.').map_or(0, |(_, digits)| digits.len()));
        let precision = digits.map(|digits| 0.5 * 10f64.powi(-(digits as i32)));
        if let Some(problem) = impossible(mse, mae, precision) {
            warn(problem);
        }
    }
    Ok(warnings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_impossible_cells_of_a_copied_table_are_named() -> Result<()> {
        let table = "Model, MSE ,MAE,horizon\nA,0.455,0.883,96\nB,0.250,0.5004,96\nC,0.4,,96\nD,x,1,96\n";
        let found = lint_table(table)?;
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found[0].to_string(), "line 2 (A, 96): MSE 0.455 is below the square of MAE 0.883");
        assert_eq!(found[1].to_string(), "line 5 (D, 96): 'x' and '1' are not two numbers");
        // Each number has the precision it is printed with.
        assert_eq!(lint_table("mse,mae\n0.40,0.640\n0.40,0.63\n")?.len(), 1);
        assert!(lint_table("model,mse\nA,1\n").unwrap_err().to_string().contains("no column 'mae'"));
        assert!(lint_table("mse,mae\n1\n").unwrap_err().to_string().contains("line: 2"));
        Ok(())
    }

    #[test]
    fn a_mean_of_squares_below_the_square_of_the_mean_is_found() {
        // Printed in a table of 2024: it cannot be.
        assert!(impossible(0.455, 0.883, [0.0005; 2]).is_some());
        assert_eq!(impossible(0.370, 0.392, [0.0005; 2]), None);
        assert!(impossible(-0.1, 0.1, [0.0; 2]).is_some());
        assert!(impossible(f64::NAN, 0.1, [0.0; 2]).is_some());
    }

    #[test]
    fn rounding_alone_is_no_fault() {
        assert_eq!(impossible(0.250, 0.5004, [0.0005; 2]), None);
        assert_eq!(impossible(0.25, 0.5, [0.0; 2]), None);
    }
}
