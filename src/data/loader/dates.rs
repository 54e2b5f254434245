//! Which format the dates of a column are in, and the dates.

use std::sync::LazyLock;

use chrono::{
    DateTime, Datelike, NaiveDateTime, NaiveTime, TimeDelta,
    format::{Item, Parsed, StrftimeItems, parse as parse_items},
};

/// The formats of dates that are recognised, in the order they are tried (in the notation of
/// `strftime`; months, days and hours need no leading zero, years need four digits).
///
/// Each may be followed by a time, `%H:%M` or `%H:%M:%S` with or without a fraction, after a space
/// or `T`, and that by an offset such as `+00:00` or `Z`. Where day and month can be told apart by
/// no value of the column, the reading whose dates ascend is taken, and otherwise the first here.
///
/// The last three are numbers, and read as dates only where the name of the column says that it is the time:
/// `20201231`, a year from 1500 to 2500, and `%s`, seconds since 1970 (milli-, micro- or nanoseconds by their size).
pub const FORMATS: [&str; 10] =
    ["%Y-%m-%d", "%Y/%m/%d", "%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y", "%Y-%m", "%Y/%m", "%Y%m%d", YEAR, UNIX];

const YEAR: &str = "%Y";
const UNIX: &str = "%s";

const TIMES: [&str; 5] = ["", " %H:%M:%S%.f", " %H:%M", "T%H:%M:%S%.f", "T%H:%M"];

/// How an offset is written; local time is kept where all rows have the same one.
const OFFSETS: [&str; 2] = ["", "%#z"];

/// What a column of cells cannot be read as dates for: the first bad row.
#[derive(Debug)]
pub(super) struct NotADate {
    pub(super) row: usize,
    pub(super) message: String,
}

#[derive(Debug)]
struct Pattern {
    text: String,
    /// The same as chrono takes it apart, once for all cells.
    items: Vec<Item<'static>>,
    zoned: bool,
    timed: bool,
    /// A month or a year is its first day.
    first_day: bool,
}

static PATTERNS: LazyLock<Vec<Pattern>> = LazyLock::new(|| {
    let mut patterns = Vec::new();
    for date in FORMATS {
        let first_day = !date.contains("%d");
        for time in TIMES.iter().filter(|time| !first_day || time.is_empty()) {
            for offset in OFFSETS.iter().filter(|offset| offset.is_empty() || !time.is_empty()) {
                let text = format!("{date}{time}{offset}");
                let items = StrftimeItems::new(&text).parse_to_owned().expect("the formats here are well-formed");
                let (zoned, timed) = (!offset.is_empty(), !time.is_empty());
                patterns.push(Pattern { text, items, zoned, timed, first_day });
            }
        }
    }
    patterns
});

/// A moment as written, and its offset from UTC in seconds.
type Moment = (NaiveDateTime, i32);

impl Pattern {
    fn parse(&self, cell: &str) -> Option<Moment> {
        if self.text == UNIX {
            return unix(cell).map(|moment| (moment, 0));
        }
        let mut parsed = Parsed::new();
        parse_items(&mut parsed, cell, self.items.iter()).ok()?;
        if self.first_day {
            parsed.set_day(1).ok()?;
        }
        if self.text == YEAR {
            parsed.set_month(1).ok()?;
            parsed.year().filter(|year| (1500..=2500).contains(year))?;
        }
        let moment = if self.zoned {
            let zoned = parsed.to_datetime().ok()?;
            (zoned.naive_local(), zoned.offset().local_minus_utc())
        } else if self.timed {
            (parsed.to_naive_datetime_with_offset(0).ok()?, 0)
        } else {
            (parsed.to_naive_date().ok()?.and_time(NaiveTime::MIN), 0)
        };
        // Two digits would be read as a year of the first century.
        (moment.0.year() >= 1000).then_some(moment)
    }
}

/// Since 1970; from 1973 to the year 5000, so that each unit has numbers of its own.
fn unix(cell: &str) -> Option<NaiveDateTime> {
    let count: i64 = cell.parse().ok()?;
    let each = |unit: i64| (100_000_000 * unit..100_000_000_000 * unit).contains(&count).then_some(unit);
    let unit = [1, 1_000, 1_000_000].into_iter().find_map(each);
    match unit {
        Some(unit) => DateTime::from_timestamp_micros(count * (1_000_000 / unit)),
        None => (count > 0).then(|| DateTime::from_timestamp_nanos(count)).filter(|moment| moment.year() > 1972),
    }
    .map(|moment| moment.naive_utc())
}

/// Whether the numbers of a column would be dates that ascend, if its name said that it is the time.
pub fn could_be_dates(values: &[f64]) -> bool {
    let cells: Vec<String> = values.iter().map(ToString::to_string).collect();
    let cells: Vec<&str> = cells.iter().map(String::as_str).collect();
    parse(&cells).is_ok_and(|dates| dates.windows(2).all(|pair| pair[0] < pair[1]))
}

/// Whether a cell alone is a date in one of [`FORMATS`].
pub(super) fn is_date(cell: &str) -> bool {
    let cell = cell.trim();
    // A table of 100,000 numbers is not tried in every format.
    cell.parse::<f64>().is_err() && PATTERNS.iter().any(|pattern| pattern.parse(cell).is_some())
}

/// The timestamps of a column: the first format that reads all cells, see [`FORMATS`].
pub(super) fn parse(cells: &[&str]) -> Result<Vec<NaiveDateTime>, NotADate> {
    let mut best: Option<(usize, &Pattern)> = None;
    let mut read: Option<Vec<NaiveDateTime>> = None;
    for pattern in PATTERNS.iter() {
        match parse_as(pattern, cells) {
            Ok(moments) if moments.is_sorted() => return Ok(moments),
            Ok(moments) => read = read.or(Some(moments)),
            Err(row) if best.as_ref().is_none_or(|(so_far, _)| row > *so_far) => best = Some((row, pattern)),
            Err(_) => {}
        }
    }
    if let Some(moments) = read {
        return Ok(moments);
    }
    let (row, pattern) = best.unwrap_or((0, &PATTERNS[0]));
    let cell = cells.get(row).copied().unwrap_or_default();
    let message = match (cell.trim(), row) {
        ("", _) => "has no date".to_string(),
        (_, 0) => format!("is not a date that can be read: \"{cell}\"; write it as 2020-12-31 23:59:59"),
        _ => format!("is not a date like those before it ({}): \"{cell}\"", pattern.text.replace("%.f", "")),
    };
    Err(NotADate { row, message })
}

fn parse_as(pattern: &Pattern, cells: &[&str]) -> Result<Vec<NaiveDateTime>, usize> {
    let mut moments: Vec<Moment> = Vec::new();
    for (row, cell) in cells.iter().enumerate() {
        moments.push(pattern.parse(cell.trim()).ok_or(row)?);
    }
    let one_offset = moments.iter().all(|moment| moment.1 == moments[0].1);
    let moment = |(local, offset): Moment| match one_offset {
        true => Some(local),
        // Where clocks were changed only UTC orders the rows.
        false => local.checked_sub_signed(TimeDelta::seconds(offset.into())),
    };
    moments.into_iter().enumerate().map(|(row, written)| moment(written).ok_or(row)).collect()
}
