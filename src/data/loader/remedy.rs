//! From a table as it is to a complete series: the remedies that were asked for, and no others.

use ndarray::Array2;
use rayon::prelude::*;

use super::{Duplicates, Fill, ReadOptions, Table};
use crate::{Error, Result, data::Series};

/// Sorts, joins duplicates and fills, in this order, each only as far as `options` say.
pub(super) fn complete(mut table: Table, name: &str, options: &ReadOptions) -> Result<Series> {
    let whole = first(&table, |value| !value.is_finite()).is_none();
    if !whole && let Some((row, column)) = first(&table, f64::is_infinite) {
        let message = format!("'{}' is infinite: correct the value, or remove it", table.variates[column]);
        return Err(table.fault(row, message));
    }
    order(&mut table, options)?;
    join(&mut table, options.duplicates)?;
    if !whole {
        fill(&mut table, options.fill)?;
    }
    Series::new(name, table.timestamps, table.variates, table.values)
}

/// `table` with its rows in order and joined, as [`read`](super::read) does it before anything is filled; as it is where
/// `options` do not allow that.
pub fn in_order(mut table: Table, options: &ReadOptions) -> Table {
    // What they do not allow leaves the table as it is.
    let _ = order(&mut table, options).and_then(|()| join(&mut table, options.duplicates));
    table
}

/// The first row with such a value, and the column.
fn first(table: &Table, is: impl Fn(f64) -> bool + Sync) -> Option<(usize, usize)> {
    let in_column = |column: usize| table.variate(column).iter().position(|value| is(*value));
    (0..table.variates.len()).into_par_iter().filter_map(|column| Some((in_column(column)?, column))).min()
}

fn order(table: &mut Table, options: &ReadOptions) -> Result<()> {
    let Some(row) = table.timestamps.windows(2).position(|pair| pair[1] < pair[0]).map(|row| row + 1) else {
        return Ok(());
    };
    if !options.sort {
        let (earlier, later) = (table.timestamps[row], table.timestamps[row - 1]);
        return Err(table.fault(row, format!("{earlier} comes after {later}: bring the rows into order with --sort")));
    }
    let mut rows: Vec<usize> = (0..table.len()).collect();
    rows.sort_by_key(|row| table.timestamps[*row]);
    select(table, &rows);
    Ok(())
}

/// Keeps `rows`, in this order.
fn select(table: &mut Table, rows: &[usize]) {
    let lines: Option<Vec<u64>> = rows.iter().map(|row| table.line(*row)).collect();
    table.timestamps = rows.iter().map(|row| table.timestamps[*row]).collect();
    let selected: Vec<f64> = (0..table.variates.len())
        .flat_map(|column| {
            let values = table.variate(column);
            rows.iter().map(|row| values[*row]).collect::<Vec<_>>()
        })
        .collect();
    table.values = by_variate(rows.len(), table.variates.len(), selected);
    if let Some(lines) = lines {
        table.places = super::Places::Lines(lines);
    }
}

fn by_variate(rows: usize, variates: usize, values: Vec<f64>) -> Array2<f64> {
    Array2::from_shape_vec((variates, rows), values).expect("one value for each row and variate").reversed_axes()
}

fn join(table: &mut Table, duplicates: Duplicates) -> Result<()> {
    let same = |row: usize| table.timestamps[row] == table.timestamps[row - 1];
    let Some(row) = (1..table.timestamps.len()).find(|row| same(*row)) else { return Ok(()) };
    match duplicates {
        Duplicates::Keep => return Ok(()),
        Duplicates::Error => {
            let time = table.timestamps[row];
            let count = (1..table.timestamps.len()).filter(|row| same(*row)).count();
            let message = format!(
                "{time} is also the time of {} ({count} duplicates in all): \
                 use --duplicates first or mean, or keep to leave them as they are",
                table.place(row - 1)
            );
            return Err(table.fault(row, message));
        }
        Duplicates::First | Duplicates::Mean => {}
    }
    let starts: Vec<usize> = (0..table.len()).filter(|row| *row == 0 || !same(*row)).collect();
    if duplicates == Duplicates::Mean {
        let ends = starts.iter().copied().skip(1).chain([table.len()]);
        let groups: Vec<(usize, usize)> =
            starts.iter().copied().zip(ends).filter(|(start, end)| end - start > 1).collect();
        for mut column in table.values.columns_mut() {
            for (start, end) in &groups {
                // A missing value has no part in the mean of the others.
                let known: Vec<f64> = (*start..*end).map(|row| column[row]).filter(|value| !value.is_nan()).collect();
                column[*start] = if known.is_empty() { f64::NAN } else { mean(&known) };
            }
        }
    }
    select(table, &starts);
    Ok(())
}

/// Divides first, so that the sum of huge values does not overflow.
fn mean(values: &[f64]) -> f64 {
    values.iter().map(|value| value / values.len() as f64).sum()
}

fn fill(table: &mut Table, fill: Fill) -> Result<()> {
    let Some((row, column)) = first(table, f64::is_nan) else { return Ok(()) };
    if fill == Fill::None {
        let count = table.values.iter().filter(|value| value.is_nan()).count();
        let message = format!(
            "'{}' is missing ({count} missing values in all): fill them with --fill forward or --fill linear",
            table.variates[column]
        );
        return Err(table.fault(row, message));
    }
    for column in 0..table.variates.len() {
        let values = table.variate(column);
        let Some(known) = values.iter().position(|value| !value.is_nan()) else {
            let message = format!("'{}' has no value at all: leave it out with --columns", table.variates[column]);
            return Err(Error::file(&table.file, message));
        };
        if known > 0 && fill == Fill::Forward {
            let message = format!(
                "'{}' is missing and nothing is before it to carry forward: use --fill linear, or cut the first {known} rows",
                table.variates[column]
            );
            return Err(table.fault(0, message));
        }
    }
    for mut column in table.values.columns_mut() {
        let values = column.as_slice_mut().expect("a table is kept column by column");
        match fill {
            Fill::None => {}
            Fill::Forward => forward(values),
            Fill::Linear => linear(values),
        }
    }
    Ok(())
}

fn forward(values: &mut [f64]) {
    for row in 1..values.len() {
        if values[row].is_nan() {
            values[row] = values[row - 1];
        }
    }
}

fn linear(values: &mut [f64]) {
    let known: Vec<usize> = (0..values.len()).filter(|row| !values[*row].is_nan()).collect();
    let (Some(&first), Some(&last)) = (known.first(), known.last()) else { return };
    let (start, end) = (values[first], values[last]);
    values[..first].fill(start);
    values[last + 1..].fill(end);
    for pair in known.windows(2) {
        let (from, to) = (pair[0], pair[1]);
        let (start, end) = (values[from], values[to]);
        for (row, value) in values[from..to].iter_mut().enumerate().skip(1) {
            let share = row as f64 / (to - from) as f64;
            // Not `start + share * (end - start)`: that difference can overflow.
            *value = start * (1.0 - share) + end * share;
        }
    }
}
