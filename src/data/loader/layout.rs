//! What the head of a text file says: separator, names, which column is the time.

use std::{collections::HashMap, path::Path};

use csv::{ReaderBuilder, StringRecord};

use super::{ReadOptions, TimeColumn, content, dates};
use crate::{Error, Result};

/// Names of columns that can only be the time.
const TIME_NAMES: [&str; 5] = ["date", "datetime", "timestamp", "time", "ds"];

#[derive(Debug)]
pub(super) struct Layout {
    pub(super) separator: u8,
    /// `\n`, or `\r` in files that only have that.
    pub(super) line_end: u8,
    /// Every column of the file, in its order.
    pub(super) names: Vec<String>,
    pub(super) choice: Choice,
    /// Where the first row begins, in bytes from the start of the text.
    pub(super) body: usize,
    /// The line the first row is on.
    pub(super) first_line: u64,
}

/// Which columns of a file are wanted.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) time: Option<usize>,
    /// The variates, in the order wanted.
    pub(super) variates: Vec<usize>,
}

impl Layout {
    pub(super) fn of(path: &Path, text: &str, options: &ReadOptions) -> Result<Self> {
        let line_end = if text.contains('\n') { b'\n' } else { b'\r' };
        let separator = separator(text);
        let mut head = reader(separator).from_reader(text.as_bytes());
        let unreadable = |error: csv::Error| Error::file(path, format!("cannot be read as CSV: {error}"));
        let mut record = StringRecord::new();
        if !head.read_record(&mut record).map_err(unreadable)? {
            return Err(Error::file(path, "the file is empty"));
        }
        let names = match options.header {
            true => record.iter().enumerate().map(|(index, name)| named(name, index)).collect(),
            false => (0..record.len()).map(|index| named("", index)).collect::<Vec<_>>(),
        };
        let mut body = 0;
        if options.header {
            body = usize::try_from(head.position().byte()).expect("an offset in a text in memory");
            if !head.read_record(&mut record).map_err(unreadable)? {
                return Err(Error::file(path, "there is a header, but no row below it"));
            }
        }
        body += text[body..].find(|c| c != '\r' && c != '\n').unwrap_or(0);
        let first_line = 1 + content::count(&text.as_bytes()[..body], line_end) as u64;
        if let Err(name) = all_different(&names) {
            let message = match name.parse::<f64>() {
                Ok(_) => format!("two columns are called '{name}': rename one, or use --no-header if line 1 is data"),
                Err(_) => format!("two columns are called '{name}': rename one"),
            };
            return Err(Error::Line { file: path.to_path_buf(), line: 1, message });
        }
        if options.header && names.iter().any(|name| dates::is_date(name)) {
            let message = "holds a date where the names should be: use --no-header if line 1 is data".to_string();
            return Err(Error::Line { file: path.to_path_buf(), line: 1, message });
        }
        let choice = Choice::of(path, &names, |index| record.get(index).is_some_and(dates::is_date), options)?;
        Ok(Self { separator, line_end, names, choice, body, first_line })
    }
}

impl Choice {
    /// `holds_dates` says whether the first cell of a column is a date.
    pub(super) fn of(
        path: &Path,
        names: &[String],
        holds_dates: impl Fn(usize) -> bool,
        options: &ReadOptions,
    ) -> Result<Self> {
        let known = || names.iter().map(String::as_str);
        let places: HashMap<&str, usize> = known().enumerate().map(|(index, name)| (name, index)).collect();
        let find = |name: &str| places.get(name).copied().ok_or_else(|| Error::unknown("column", name, known()));
        let time = match &options.time_column {
            TimeColumn::Absent => None,
            TimeColumn::Named(name) => Some(find(name)?),
            TimeColumn::Auto => TIME_NAMES
                .iter()
                .find_map(|time| names.iter().position(|name| name.eq_ignore_ascii_case(time)))
                .or_else(|| holds_dates(0).then_some(0)),
        };
        let variates = match &options.columns {
            None => (0..names.len()).filter(|index| Some(*index) != time).collect(),
            Some(wanted) => {
                if let Err(name) = all_different(wanted) {
                    return Err(Error::file(path, format!("column '{name}' is asked for twice")));
                }
                wanted.iter().map(|name| find(name)).collect::<Result<Vec<_>>>()?
            }
        };
        if let Some(time) = time
            && variates.contains(&time)
        {
            let message = format!("column '{}' is the time and cannot be a variate as well", names[time]);
            return Err(Error::file(path, message));
        }
        if variates.is_empty() {
            return Err(Error::file(path, "there is no column of values, only the time"));
        }
        Ok(Self { time, variates })
    }
}

/// A csv reader that leaves the counting of cells, and what is a header, to its caller.
pub(super) fn reader(separator: u8) -> ReaderBuilder {
    let mut builder = ReaderBuilder::new();
    builder.has_headers(false).flexible(true).delimiter(separator);
    builder
}

pub(super) fn named(name: &str, index: usize) -> String {
    match name.trim() {
        "" => format!("column_{}", index + 1),
        name => name.to_string(),
    }
}

/// The first name that occurs a second time, as an error.
pub(super) fn all_different(names: &[String]) -> Result<(), &str> {
    let mut seen = std::collections::HashSet::new();
    names.iter().find(|name| !seen.insert(name.as_str())).map_or(Ok(()), |name| Err(name))
}

/// A comma, unless the first line has none but semicolons or tabs.
fn separator(text: &str) -> u8 {
    let first = text.lines().next().unwrap_or_default();
    [b',', b';', b'\t'].into_iter().find(|separator| first.as_bytes().contains(separator)).unwrap_or(b',')
}
