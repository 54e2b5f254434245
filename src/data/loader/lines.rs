//! Text files: the fast reader, checked, and behind it the one that names the line.

use std::path::Path;

use chrono::NaiveDateTime;
use csv::StringRecord;
use ndarray::{Array2, ShapeBuilder};

use super::{
    Places, ReadOptions, Table, columnar,
    content::{self, Content},
    dates,
    layout::{self, Layout},
};
use crate::Error;

/// Up to `limit` faults (at least one) if there are any.
pub(super) fn table(path: &Path, content: &Content, options: &ReadOptions, limit: usize) -> Result<Table, Vec<Error>> {
    let text = content::text(path, &content.bytes).map_err(|fault| vec![fault])?;
    let layout = Layout::of(path, text, options).map_err(|fault| vec![fault])?;
    let quickly = || {
        let (timestamps, values, rows) = columnar::csv_columns(text, &layout)?;
        Some(table_of(path, &layout, timestamps, values, rows, Places::From(layout.first_line)))
    };
    // The checksum takes a tenth of the time, on a core that would otherwise wait.
    let (table, sha256) = rayon::join(quickly, || content.sha256());
    let table = table.map_or_else(|| read_line_by_line(path, text, &layout, limit), Ok)?;
    Ok(Table { sha256, ..table })
}

/// The table without a checksum.
fn table_of(
    path: &Path,
    layout: &Layout,
    timestamps: Vec<NaiveDateTime>,
    values: Vec<f64>,
    rows: usize,
    places: Places,
) -> Table {
    let variates: Vec<String> = layout.choice.variates.iter().map(|index| layout.names[*index].clone()).collect();
    Table {
        file: path.to_path_buf(),
        sha256: String::new(),
        time_column: layout.choice.time.map(|index| layout.names[index].clone()),
        timestamps,
        values: Array2::from_shape_vec((rows, variates.len()).f(), values).expect("one value for each row and variate"),
        variates,
        places,
    }
}

/// Half as fast as polars, but it knows where it is.
pub(super) fn read_line_by_line(path: &Path, text: &str, layout: &Layout, limit: usize) -> Result<Table, Vec<Error>> {
    let body = &text[layout.body..];
    let mut reader = layout::reader(layout.separator).from_reader(body.as_bytes());
    let mut record = StringRecord::new();
    let mut faults = Vec::new();
    let mut lines: Vec<u64> = Vec::new();
    let mut times: Vec<String> = Vec::new();
    let mut columns: Vec<Vec<f64>> = vec![Vec::new(); layout.choice.variates.len()];
    let (mut line, mut counted) = (layout.first_line, 0);
    let fault = |line: u64, message: String| Error::Line { file: path.to_path_buf(), line, message };
    loop {
        // The reader may stop before the `\n` of a `\r\n`, and before blank lines: skip what it would skip.
        let at = usize::try_from(reader.position().byte()).expect("an offset in a text in memory");
        let start = at + body[at..].find(|c| c != '\r' && c != '\n').unwrap_or(body.len() - at);
        let passed = content::count(&body.as_bytes()[counted..start], layout.line_end) as u64;
        if layout.names.len() == 1 && passed > 1 && start < body.len() {
            faults.push(fault(line + 1, "the line is empty: remove it, or give it a value".to_string()));
        }
        (line, counted) = (line + passed, start);
        if faults.len() >= limit {
            return Err(faults);
        }
        match reader.read_record(&mut record) {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                faults.push(fault(line, format!("cannot be read as CSV: {error}")));
                return Err(faults);
            }
        }
        if record.len() != layout.names.len() {
            let expected = layout.names.len();
            let quote = if record.iter().any(|cell| cell.contains('\n')) { "; a quote may not be closed" } else { "" };
            faults.push(fault(line, format!("{} fields, the header has {expected}{quote}", record.len())));
            continue;
        }
        lines.push(line);
        times.extend(layout.choice.time.map(|time| record[time].to_string()));
        for (values, index) in columns.iter_mut().zip(&layout.choice.variates) {
            match number(&record[*index]) {
                Some(value) => values.push(value),
                None => {
                    values.push(f64::NAN);
                    faults.push(not_a_number(path, line, &layout.names[*index], &record[*index]));
                    if faults.len() >= limit {
                        return Err(faults);
                    }
                }
            }
        }
    }
    let cells: Vec<&str> = times.iter().map(String::as_str).collect();
    let timestamps = dates::parse(&cells).unwrap_or_else(|bad| {
        let name = layout.choice.time.map_or("", |time| layout.names[time].as_str());
        let remedy = if bad.row == 0 { "; name another with --time-column, or none" } else { "" };
        faults.push(fault(lines[bad.row], format!("'{name}' {}{remedy}", bad.message)));
        Vec::new()
    });
    if !faults.is_empty() {
        return Err(faults);
    }
    let rows = lines.len();
    if rows == 0 {
        return Err(vec![Error::file(path, "there is a header, but no row below it")]);
    }
    Ok(table_of(path, layout, timestamps, columns.concat(), rows, Places::Lines(lines)))
}

/// NaN for an empty cell, `None` for text.
pub(super) fn number(cell: &str) -> Option<f64> {
    match cell.trim() {
        "" => Some(f64::NAN),
        cell => cell.parse().ok(),
    }
}

pub(super) fn not_a_number(path: &Path, line: u64, name: &str, cell: &str) -> Error {
    let mut shown: String = cell.chars().take(40).collect();
    if shown.len() < cell.len() {
        shown.push('…');
    }
    let message = format!(
        "'{name}' is not a number: \"{shown}\"; leave the cell empty if the value is missing, \
         or choose the columns with --columns"
    );
    Error::Line { file: path.to_path_buf(), line, message }
}
