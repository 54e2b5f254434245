//! Reads a CSV, gzipped CSV or Parquet file into a [`Series`], or says which line is why not.
//!
//! Two readers lie behind one door. polars reads the well-formed file fast. Whatever it refuses,
//! or would pass over in silence (it pads short rows), is read again line by line, and that
//! second reader either succeeds or names the line. Nothing is repaired unless an option says so.

mod collection;
mod columnar;
mod content;
mod dates;
#[cfg(test)]
mod fuzz;
mod layout;
mod lines;
mod remedy;
#[cfg(test)]
mod tests;
mod write;

use std::path::{Path, PathBuf};

use chrono::NaiveDateTime;
use ndarray::{Array2, ArrayView2};
use serde::{Deserialize, Serialize};

pub use collection::{Collection, read_collection};
pub use dates::{FORMATS as DATE_FORMATS, could_be_dates};
pub use remedy::in_order;
pub use write::{NumberTable, written};

use self::content::{Content, Format};
use super::Series;
use crate::{Error, Result};

/// Which column holds the timestamps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TimeColumn {
    /// A column called `date`, `datetime`, `timestamp`, `time` or `ds`, whatever its case; else
    /// the first column, if its first cell is a date.
    #[default]
    Auto,
    /// The column of this name.
    Named(String),
    /// None: every column is a variate.
    Absent,
}

/// What is done about missing values: empty cells and NaN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Fill {
    /// They are an error.
    #[default]
    None,
    /// The last known value of the variate.
    Forward,
    /// A straight line, by row, between the known values on both sides; the nearest known value
    /// beyond the first and the last. It looks ahead, so it does not belong into a test.
    Linear,
}

/// What is done about rows with the same timestamp.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Duplicates {
    /// They are an error.
    #[default]
    Error,
    /// The first of them stays.
    First,
    /// One row with their mean stays.
    Mean,
    /// All of them stay, as in the published results on Weather.
    Keep,
}

/// How a file is read. The default repairs nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadOptions {
    /// Which column holds the timestamps.
    pub time_column: TimeColumn,
    /// The variates to read, in this order; all without it.
    pub columns: Option<Vec<String>>,
    /// What is done about missing values.
    pub fill: Fill,
    /// What is done about rows with the same timestamp.
    pub duplicates: Duplicates,
    /// Whether rows are brought into the order of their timestamps.
    pub sort: bool,
    /// Whether the first line holds names; without them columns are called `column_1`, `column_2`, ...
    pub header: bool,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            time_column: TimeColumn::Auto,
            columns: None,
            fill: Fill::None,
            duplicates: Duplicates::Error,
            sort: false,
            header: true,
        }
    }
}

/// A file that was read, and which one it was.
#[derive(Clone, Debug)]
pub struct Reading {
    /// What the file holds.
    pub series: Series,
    /// Of the content after gzip expansion, so that a file and its gzipped copy have the same one;
    /// of a Parquet file as stored.
    pub sha256: String,
}

/// What a file holds before any remedy and any check of completeness.
#[derive(Clone, Debug)]
pub struct Table {
    file: PathBuf,
    sha256: String,
    time_column: Option<String>,
    timestamps: Vec<NaiveDateTime>,
    variates: Vec<String>,
    values: Array2<f64>,
    places: Places,
}

/// Where the rows of a table are in the file.
#[derive(Clone, Debug)]
enum Places {
    /// On consecutive lines from this one.
    From(u64),
    /// On these lines.
    Lines(Vec<u64>),
    /// Not on lines at all (Parquet).
    Rows,
}

impl Table {
    /// Of the content, as in [`Reading`].
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// The name of the column the timestamps are from.
    pub fn time_column(&self) -> Option<&str> {
        self.time_column.as_deref()
    }

    /// One timestamp a row in file order, or none at all.
    pub fn timestamps(&self) -> &[NaiveDateTime] {
        &self.timestamps
    }

    /// The names of the variates.
    pub fn variates(&self) -> &[String] {
        &self.variates
    }

    /// `[time, variates]` in file order, NaN where a value is missing; columns are contiguous.
    pub fn values(&self) -> ArrayView2<'_, f64> {
        self.values.view()
    }

    /// Rows.
    pub fn len(&self) -> usize {
        self.values.nrows()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All values of one variate.
    pub fn variate(&self, index: usize) -> &[f64] {
        let rows = self.len();
        let all = self.values.as_slice_memory_order().expect("a table is kept column by column");
        &all[index * rows..(index + 1) * rows]
    }

    /// The line of the file a row is on, counted from 1; `None` for a Parquet file.
    pub fn line(&self, row: usize) -> Option<u64> {
        match &self.places {
            Places::From(first) => Some(first + row as u64),
            Places::Lines(lines) => lines.get(row).copied(),
            Places::Rows => None,
        }
    }

    /// Where a row is, in words: `line 214`, or `row 213` for a Parquet file.
    pub fn place(&self, row: usize) -> String {
        match self.line(row) {
            Some(line) => format!("line {line}"),
            None => format!("row {}", row + 1),
        }
    }

    fn fault(&self, row: usize, message: impl Into<String>) -> Error {
        let (file, message) = (self.file.clone(), message.into());
        match self.line(row) {
            Some(line) => Error::Line { file, line, message },
            None => Error::file(&file, format!("row {}: {message}", row + 1)),
        }
    }
}

/// Reads the file at `path` into a complete series called `name`.
///
/// The format follows from the extension: `.csv`, `.txt`, `.csv.gz`, `.gz`, `.parquet`.
///
/// # Errors
/// If the file cannot be read, or holds what no option in `options` allows: the message names the
/// line and the remedy.
pub fn read(path: &Path, name: &str, options: &ReadOptions) -> Result<Reading> {
    let table = read_table(path, options)?;
    let sha256 = table.sha256.clone();
    Ok(Reading { series: remedy::complete(table, name, options)?, sha256 })
}

/// Reads the file at `path` as it is: no remedy of `options` is applied, and missing, infinite,
/// duplicate and unordered values are not looked for.
///
/// # Errors
/// If the file cannot be read, a row has too few or too many cells, or a cell is not what its
/// column holds.
pub fn read_table(path: &Path, options: &ReadOptions) -> Result<Table> {
    let content = Content::of(path)?;
    match content.format {
        Format::Csv => lines::table(path, &content, options, 1).map_err(|mut faults| faults.swap_remove(0)),
        Format::Parquet => columnar::parquet_table(path, content, options),
    }
}

/// Reads CSV that is in memory, as [`read_table`] reads a file; messages call it `name`.
///
/// # Errors
/// As for [`read_table`].
pub fn read_csv(bytes: Vec<u8>, name: &str, options: &ReadOptions) -> Result<Table> {
    let path = Path::new(name);
    if bytes.is_empty() {
        return Err(Error::file(path, "there is nothing in it"));
    }
    let content = Content { bytes, format: Format::Csv };
    lines::table(path, &content, options, 1).map_err(|mut faults| faults.swap_remove(0))
}

/// The timestamps that `cells` are, in the one of [`DATE_FORMATS`] that reads them all.
///
/// # Errors
/// If there is none: the first row, counted from 1, that is not like those before it.
pub fn read_dates(cells: &[&str]) -> Result<Vec<NaiveDateTime>> {
    dates::parse(cells).map_err(|bad| Error::other(format!("row {} {}", bad.row + 1, bad.message)))
}

/// Why [`read_table`] fails: up to `limit` faults, in the order of the lines they are on.
pub(crate) fn faults(path: &Path, options: &ReadOptions, limit: usize) -> Vec<Error> {
    let result = Content::of(path).map_err(|fault| vec![fault]).and_then(|content| match content.format {
        Format::Csv => lines::table(path, &content, options, limit),
        Format::Parquet => columnar::parquet_table(path, content, options).map_err(|fault| vec![fault]),
    });
    result.err().unwrap_or_default()
}
