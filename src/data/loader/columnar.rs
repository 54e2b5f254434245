//! What polars reads: well-formed CSV, fast, and Parquet. No other file of the crate names it.

use std::{
    any::Any,
    collections::HashMap,
    io::Cursor,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
};

use chrono::{DateTime, NaiveDateTime, TimeDelta};
use ndarray::{Array2, ShapeBuilder};
use polars::prelude::*;
use polars_buffer::Buffer;
use polars_parquet::{
    parquet::{
        metadata::{ColumnChunkMetadata, FileMetadata},
        page::CompressedPage,
    },
    read::PageReader,
};
use rayon::prelude::*;

use super::{
    Places, ReadOptions, Table,
    content::{self, Content},
    dates,
    layout::{self, Choice, Layout},
};
use crate::{Error, Result};

/// polars allots buffers for each column and part of the file; beyond this width the other reader
/// is faster.
const WIDEST: usize = 10_000;

/// The timestamps, the values (one variate after the other, NaN where missing) and the number of rows.
///
/// `None` where polars refuses the file, or where it might have read it otherwise than it is
/// written. The caller then reads line by line, so nothing here has to explain what is wrong.
///
/// * A quote anywhere: polars does not check that quotes are closed (and cuts the field `"` to a
///   length below zero).
/// * Blank lines, lone carriage returns, short rows (padded in silence), long rows (cut in silence
///   where columns are chosen): found by counting line ends and separators.
pub(super) fn csv_columns(text: &str, layout: &Layout) -> Option<(Vec<NaiveDateTime>, Vec<f64>, usize)> {
    let body = &text.as_bytes()[layout.body..];
    let width = layout.names.len();
    if width > WIDEST {
        return None;
    }
    // polars' own code is not trusted to be free of panics on bytes nobody has tried yet.
    let (rows, columns) = rayon::join(
        || rows(body, layout),
        || catch_unwind(|| csv_frame(body, layout)).ok()?.ok().map(DataFrame::into_columns),
    );
    let (rows, columns) = (rows?, columns?);
    if columns.first()?.len() != rows || columns.last()?.null_count() > 0 {
        return None;
    }
    // Each column that was read, with its place among the variates wanted; those may not be ascending.
    let mut places = vec![None; layout.names.len()];
    for (place, variate) in layout.choice.variates.iter().enumerate() {
        places[*variate] = Some(place);
    }
    let mut times = None;
    let mut wanted = Vec::with_capacity(layout.choice.variates.len());
    for (index, column) in columns_read(layout).into_iter().zip(columns) {
        if Some(index) == layout.choice.time {
            times = Some(column);
        } else if let Some(place) = places[index] {
            wanted.push((place, column));
        }
    }
    wanted.sort_unstable_by_key(|(place, _)| *place);
    let cells: Vec<&str> = match &times {
        Some(times) => times.str().ok()?.iter().map(Option::unwrap_or_default).collect(),
        None => Vec::new(),
    };
    let mut values = vec![0.0; rows * wanted.len()];
    // Dropped when copied: the table and polars' columns are never both whole in memory.
    let copies = values.par_chunks_mut(rows).zip(wanted).map(|(into, (_, column))| copy(into, &column));
    let (copied, timestamps) = rayon::join(|| copies.collect::<PolarsResult<()>>(), || dates::parse(&cells));
    copied.ok()?;
    Some((timestamps.ok()?, values, rows))
}

/// How many rows there are, if there is no quote and as many line ends and separators as whole rows have.
fn rows(body: &[u8], layout: &Layout) -> Option<usize> {
    let [mut ends, mut separators, mut returns] = [0; 3];
    // All of them in one part after the other, while it is in the cache.
    for part in body.chunks(1 << 16) {
        if memchr::memchr(b'"', part).is_some() {
            return None;
        }
        ends += content::count(part, layout.line_end);
        separators += content::count(part, layout.separator);
        returns += content::count(part, b'\r');
    }
    let rows = ends + usize::from(body.last() != Some(&layout.line_end));
    let alone = if layout.line_end == b'\r' { 0 } else { returns };
    (separators == rows * (layout.names.len() - 1) && (alone == 0 || alone == ends)).then_some(rows)
}

/// Ascending: the time, the variates, and always the last column, whose nulls betray short rows.
fn columns_read(layout: &Layout) -> Vec<usize> {
    let mut read: Vec<usize> = layout.choice.variates.iter().copied().chain(layout.choice.time).collect();
    read.push(layout.names.len() - 1);
    read.sort_unstable();
    read.dedup();
    read
}

fn csv_frame(body: &[u8], layout: &Layout) -> PolarsResult<DataFrame> {
    // Names by number: those of the file may be anything.
    let mut types = vec![DataType::String; layout.names.len()];
    for variate in &layout.choice.variates {
        types[*variate] = DataType::Float64;
    }
    let schema: Schema =
        types.into_iter().enumerate().map(|(index, kind)| Field::new(index.to_string().into(), kind)).collect();
    let read = columns_read(layout);
    let all = read.len() == layout.names.len();
    CsvReadOptions::default()
        .with_has_header(false)
        .with_schema(Some(Arc::new(schema)))
        .with_projection((!all).then(|| Arc::new(read)))
        .with_rechunk(false)
        .map_parse_options(|options| {
            options.with_separator(layout.separator).with_eol_char(layout.line_end).with_quote_char(None)
        })
        .into_reader_with_file_handle(Cursor::new(body))
        .finish()
}

/// The values of a column, NaN where one is missing.
fn copy(into: &mut [f64], column: &Column) -> PolarsResult<()> {
    let mut from = 0;
    for chunk in column.f64()?.downcast_iter() {
        let into = &mut into[from..from + chunk.len()];
        match chunk.validity() {
            None => into.copy_from_slice(chunk.values()),
            Some(_) => {
                into.iter_mut().zip(chunk.iter()).for_each(|(into, value)| *into = value.copied().unwrap_or(f64::NAN));
            }
        }
        from += chunk.len();
    }
    Ok(())
}

pub(super) fn parquet_table(path: &Path, content: Content, options: &ReadOptions) -> Result<Table> {
    // polars trusts what a file says of itself in many places: a panic in one of them is an error here.
    catch_unwind(AssertUnwindSafe(|| parquet(path, content, options)))
        .unwrap_or_else(|cause| Err(damaged(path, panic_message(cause.as_ref()))))
}

/// Whether the pages of the file hold as many values as the file says it has rows.
///
/// polars reserves memory for what a page claims to hold, and the process ends where there is not
/// as much. No panic tells of that, so it has to be found before.
fn pages_agree(bytes: &Buffer<u8>, metadata: &FileMetadata) -> bool {
    let rows: usize = metadata.row_groups.iter().map(|group| group.num_rows()).sum();
    let as_many_values = |column: &ColumnChunkMetadata, rows: usize| {
        let range = column.byte_range();
        let (Ok(start), Ok(end)) = (usize::try_from(range.start), usize::try_from(range.end)) else { return false };
        if start > end || end > bytes.len() {
            return false;
        }
        let pages = PageReader::new(Cursor::new(bytes.clone().sliced(start..end)), column, Vec::new(), bytes.len());
        let values = pages.map(|page| match page {
            Ok(CompressedPage::Data(page)) => Some(page.num_values()).filter(|values| *values <= rows),
            Ok(CompressedPage::Dict(_)) => Some(0),
            Err(_) => None,
        });
        values.sum::<Option<usize>>() == Some(rows)
    };
    rows == metadata.num_rows
        && metadata.row_groups.iter().all(|group| {
            let columns = group.parquet_columns().iter();
            // Only lists have more than one value a row, and they are no numbers.
            let mut flat = columns.filter(|column| column.descriptor().descriptor.max_rep_level == 0);
            flat.all(|column| as_many_values(column, group.num_rows()))
        })
}

fn parquet(path: &Path, content: Content, options: &ReadOptions) -> Result<Table> {
    let sha256 = content.sha256();
    let bytes = Buffer::from_vec(content.bytes);
    let reader = || ParquetReader::new(Cursor::new(bytes.clone()));
    let mut opened = reader();
    let metadata = opened.get_metadata().map_err(|error| damaged(path, error))?;
    if !pages_agree(&bytes, metadata) {
        return Err(damaged(path, "its pages do not hold what its footer says"));
    }
    let schema = reader().schema().map_err(|error| damaged(path, error))?;
    let names: Vec<String> = schema.iter_names().enumerate().map(|(index, name)| layout::named(name, index)).collect();
    if let Err(name) = layout::all_different(&names) {
        return Err(Error::file(path, format!("two columns are called '{name}': rename one")));
    }
    if names.is_empty() {
        return Err(Error::file(path, "there is no column"));
    }
    let first = reader().with_slice(Some((0, 1))).with_projection(Some(vec![0])).finish();
    let first = first.map_err(|error| damaged(path, error))?.into_columns().swap_remove(0);
    let holds_dates = |_| match first.dtype() {
        DataType::Date | DataType::Datetime(..) => true,
        DataType::String => first.str().is_ok_and(|cells| cells.first().is_some_and(dates::is_date)),
        _ => false,
    };
    let choice = Choice::of(path, &names, holds_dates, options)?;
    let wanted: Vec<usize> = choice.time.into_iter().chain(choice.variates.iter().copied()).collect();
    let frame = reader().with_projection(Some(wanted.clone())).finish().map_err(|error| damaged(path, error))?;
    let rows = frame.height();
    if rows == 0 {
        return Err(Error::file(path, "there are columns, but no row"));
    }
    // Whether they come in the order of the file or of the projection is polars' affair.
    let mut columns: HashMap<PlSmallStr, Column> =
        frame.into_columns().into_iter().map(|column| (column.name().clone(), column)).collect();
    let mut take = |index: usize| {
        let column = schema.get_at_index(index).and_then(|(name, _)| columns.remove(name));
        column.ok_or_else(|| damaged(path, "a column is missing"))
    };
    let timestamps = match choice.time {
        Some(time) => timestamps(path, &names[time], &take(time)?)?,
        None => Vec::new(),
    };
    let mut values = Vec::new();
    let size = rows.checked_mul(choice.variates.len());
    match size {
        Some(size) if values.try_reserve_exact(size).is_ok() => values.resize(size, 0.0),
        _ => return Err(Error::file(path, format!("{rows} rows do not fit into memory"))),
    }
    for (variate, into) in choice.variates.iter().zip(values.chunks_exact_mut(rows)) {
        let column = take(*variate)?;
        let name = &names[*variate];
        if !column.dtype().is_primitive_numeric() {
            return Err(Error::file(
                path,
                format!("'{name}' holds {}, not numbers: choose the columns with --columns", column.dtype()),
            ));
        }
        let column = column.cast(&DataType::Float64).map_err(|error| damaged(path, error))?;
        if column.len() != rows {
            return Err(damaged(path, "columns differ in length"));
        }
        copy(into, &column).map_err(|error| damaged(path, error))?;
    }
    Ok(Table {
        file: path.to_path_buf(),
        sha256,
        time_column: choice.time.map(|time| names[time].clone()),
        timestamps,
        values: Array2::from_shape_vec((rows, choice.variates.len()).f(), values)
            .map_err(|_| damaged(path, "columns differ in length"))?,
        variates: choice.variates.iter().map(|variate| names[*variate].clone()).collect(),
        places: Places::Rows,
    })
}

fn timestamps(path: &Path, name: &str, column: &Column) -> Result<Vec<NaiveDateTime>> {
    let fault = |row: usize, message: &str| Error::file(path, format!("row {}: '{name}' {message}", row + 1));
    let per_second = match column.dtype() {
        DataType::String => {
            let cells = column.str().map_err(|error| damaged(path, error))?;
            let cells: Vec<&str> = cells.iter().map(Option::unwrap_or_default).collect();
            return dates::parse(&cells).map_err(|bad| fault(bad.row, &bad.message));
        }
        DataType::Date => None,
        DataType::Datetime(unit, _) => Some(match unit {
            TimeUnit::Milliseconds => 1_000,
            TimeUnit::Microseconds => 1_000_000,
            TimeUnit::Nanoseconds => 1_000_000_000,
        }),
        other => {
            let message = format!("'{name}' holds {other}, not dates: name another with --time-column, or none");
            return Err(Error::file(path, message));
        }
    };
    let counts = column.to_physical_repr().cast(&DataType::Int64).map_err(|error| damaged(path, error))?;
    let moment = |count: i64| match per_second {
        Some(per_second) => {
            let nanoseconds = count.rem_euclid(per_second) * (1_000_000_000 / per_second);
            DateTime::from_timestamp(count.div_euclid(per_second), u32::try_from(nanoseconds).ok()?)
                .map(|moment| moment.naive_utc())
        }
        None => DateTime::UNIX_EPOCH.naive_utc().checked_add_signed(TimeDelta::try_days(count)?),
    };
    let counts = counts.i64().map_err(|error| damaged(path, error))?;
    let moments = counts.iter().enumerate().map(|(row, count)| {
        count
            .ok_or_else(|| fault(row, "has no date"))
            .and_then(|count| moment(count).ok_or_else(|| fault(row, "is a date beyond the calendar")))
    });
    moments.collect()
}

fn damaged(path: &Path, cause: impl std::fmt::Display) -> Error {
    let cause = cause.to_string();
    let first_line = cause.lines().next().unwrap_or_default();
    Error::file(path, format!("not a complete Parquet file: {first_line}"))
}

fn panic_message(cause: &(dyn Any + Send)) -> String {
    let text = cause.downcast_ref::<String>().cloned();
    text.or_else(|| cause.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
}
