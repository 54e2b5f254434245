//! The data doctor: everything about a file that a forecast should know beforehand, at once.
//!
//! [`read`](super::loader::read) stops at the first thing it cannot accept; the doctor goes on, and
//! also names what can be read but may not be meant: gaps, constant columns, sentinel values.

use std::{collections::BTreeMap, path::Path};

use chrono::{Datelike, NaiveDateTime};
use serde::Serialize;

use super::{
    Series, Step,
    loader::{self, Duplicates, Fill, ReadOptions, Table, TimeColumn},
};
use crate::{Error, Result};

/// How many faults, places or columns are spelt out before the rest is only counted.
const SHOWN: usize = 5;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file cannot be read as it is, with these options.
    Error,
    /// It can be read, but may not mean what it seems to.
    Warning,
    /// Worth knowing.
    Note,
}

/// One thing the doctor noticed.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    pub severity: Severity,
    /// What it is about, as a fixed word for programs.
    pub kind: &'static str,
    /// What it is, with places and numbers.
    pub text: String,
    /// What can be done, naming the option.
    pub remedy: Option<String>,
}

/// A split of the rows into training, validation and test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Parts {
    /// In percent, as in `70/10/20`.
    pub ratio: String,
    pub train: usize,
    pub validation: usize,
    pub test: usize,
    /// The longest horizon that gives one window in each part.
    pub longest_horizon: usize,
    /// For the usual horizons that fit, the longest lookback that leaves one training window.
    pub longest_lookback: Vec<Fit>,
}

/// A horizon and the longest lookback that goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Fit {
    pub horizon: usize,
    pub lookback: usize,
}

/// What the doctor found; the numbers are 0 or absent where the file could not be read.
#[derive(Clone, Debug, Serialize)]
pub struct Diagnosis {
    pub file: String,
    pub sha256: Option<String>,
    pub rows: usize,
    pub variates: Vec<String>,
    pub time_column: Option<String>,
    pub first: Option<String>,
    pub last: Option<String>,
    pub step: Option<Step>,
    /// Steps between rows that are not `step`, and not 0.
    pub irregular_steps: usize,
    /// Timestamps that are absent between the first and the last, if all rows are `step` apart.
    pub missing_timestamps: usize,
    /// Rows with the timestamp of another row.
    pub duplicates: usize,
    /// Rows earlier than the one before them.
    pub unordered: usize,
    /// Missing values by column, for columns that have any.
    pub missing: BTreeMap<String, usize>,
    /// Steps in a season, by the step alone.
    pub season: Option<usize>,
    pub splits: Vec<Parts>,
    /// Errors first.
    pub findings: Vec<Finding>,
}

impl Diagnosis {
    /// Whether the file can be read with the options it was examined with.
    pub fn usable(&self) -> bool {
        self.findings.iter().all(|finding| finding.severity != Severity::Error)
    }

    fn found(&mut self, severity: Severity, kind: &'static str, text: String, remedy: Option<&str>) {
        self.findings.push(Finding { severity, kind, text, remedy: remedy.map(str::to_string) });
    }
}

/// Examines the file at `path`; what `options` remedy is a note, not an error.
///
/// # Errors
/// If the file cannot be opened, or `options` name a column it does not have. Everything that is
/// wrong inside the file is a finding.
pub fn examine(path: &Path, options: &ReadOptions) -> Result<Diagnosis> {
    let mut diagnosis = Diagnosis {
        file: path.display().to_string(),
        sha256: None,
        rows: 0,
        variates: Vec::new(),
        time_column: None,
        first: None,
        last: None,
        step: None,
        irregular_steps: 0,
        missing_timestamps: 0,
        duplicates: 0,
        unordered: 0,
        missing: BTreeMap::new(),
        season: None,
        splits: Vec::new(),
        findings: Vec::new(),
    };
    match loader::read_table(path, options) {
        Ok(table) => {
            diagnosis.sha256 = Some(table.sha256().to_string());
            diagnosis.rows = table.len();
            diagnosis.variates = table.variates().to_vec();
            diagnosis.time_column = table.time_column().map(str::to_string);
            time_axis(&mut diagnosis, &table, options);
            // What is missing is filled when rows are in order and joined.
            let table = loader::in_order(table, options);
            completeness(&mut diagnosis, &table, options.fill);
            oddities(&mut diagnosis, &table);
            names(&mut diagnosis, &table, options);
            let rows = table.len();
            diagnosis.splits = [(0.7, 0.2, "70/10/20"), (0.6, 0.2, "60/20/20")]
                .map(|(train, test, ratio)| parts(rows, train, test, ratio))
                .to_vec();
            if diagnosis.splits[0].longest_horizon == 0 {
                let text = format!("{rows} rows are too few for a split into training, validation and test");
                diagnosis.found(Severity::Warning, "few-rows", text, None);
            }
        }
        Err(fault @ (Error::Line { .. } | Error::File { .. })) => unreadable(&mut diagnosis, path, options, &fault),
        Err(error) => return Err(error),
    }
    diagnosis.findings.sort_by_key(|finding| finding.severity);
    Ok(diagnosis)
}

fn unreadable(diagnosis: &mut Diagnosis, path: &Path, options: &ReadOptions, first: &Error) {
    let mut faults = loader::faults(path, options, SHOWN + 1);
    let more = faults.len() > SHOWN;
    faults.truncate(SHOWN);
    let texts: Vec<String> = match faults.is_empty() {
        // The file changed between two readings.
        true => vec![without_file(first)],
        false => faults.iter().map(without_file).collect(),
    };
    for text in texts {
        // The loader's message is "what is wrong; what to do".
        let (text, remedy) = text.split_once("; ").map_or((text.as_str(), None), |(text, remedy)| (text, Some(remedy)));
        diagnosis.found(Severity::Error, "unreadable", text.to_string(), remedy);
    }
    if more {
        diagnosis.found(Severity::Error, "unreadable", "and more lines like these".to_string(), None);
    }
}

/// The message without the path, which the diagnosis has already.
fn without_file(error: &Error) -> String {
    match error {
        Error::Line { line, message, .. } => format!("line {line}: {message}"),
        Error::File { message, .. } => message.clone(),
        other => other.to_string(),
    }
}

fn time_axis(diagnosis: &mut Diagnosis, table: &Table, options: &ReadOptions) {
    let times = table.timestamps();
    if times.is_empty() {
        let text = "no time column: rows are taken to be equally far apart".to_string();
        let remedy = "--time-column NAME, if one of the columns holds dates";
        return diagnosis.found(Severity::Note, "no-time", text, Some(remedy));
    }
    let earlier: Vec<usize> = (1..times.len()).filter(|row| times[*row] < times[row - 1]).collect();
    diagnosis.unordered = earlier.len();
    if !earlier.is_empty() {
        let text = format!("{} earlier than the row before: {}", rows_are(earlier.len()), places(table, &earlier));
        let severity = if options.sort { Severity::Note } else { Severity::Error };
        diagnosis.found(severity, "unordered", text, Some("--sort"));
    }

    let mut order: Vec<usize> = (0..times.len()).collect();
    order.sort_by_key(|row| times[*row]);
    let twice: Vec<usize> =
        order.windows(2).filter(|pair| times[pair[0]] == times[pair[1]]).map(|pair| pair[1]).collect();
    diagnosis.duplicates = twice.len();
    if !twice.is_empty() {
        let severity = if options.duplicates == Duplicates::Error { Severity::Error } else { Severity::Note };
        let text = format!("{} a timestamp that is already there: {}", rows_have(twice.len()), times_at(table, &twice));
        diagnosis.found(severity, "duplicates", text, Some("--duplicates first, mean or keep"));
    }

    order.dedup_by_key(|row| times[*row]);
    let sorted: Vec<NaiveDateTime> = order.iter().map(|row| times[*row]).collect();
    diagnosis.first = sorted.first().map(ToString::to_string);
    diagnosis.last = sorted.last().map(ToString::to_string);
    diagnosis.step = Step::detect(&sorted);
    let Some(step) = diagnosis.step else { return };
    diagnosis.season = Some(step.season());
    steps(diagnosis, table, step, &order, &sorted);
}

/// `order` are the rows of `sorted` in the table.
fn steps(diagnosis: &mut Diagnosis, table: &Table, step: Step, order: &[usize], sorted: &[NaiveDateTime]) {
    let mut gaps = Vec::new();
    let mut odd = Vec::new();
    let mut missing = 0;
    for (index, pair) in sorted.windows(2).enumerate() {
        match steps_between(step, pair[0], pair[1]) {
            Some(1) => {}
            Some(count) => {
                missing += count - 1;
                gaps.push(order[index + 1]);
            }
            None => odd.push(order[index + 1]),
        }
    }
    diagnosis.irregular_steps = gaps.len() + odd.len();
    diagnosis.missing_timestamps = missing;
    let all = sorted.len() - 1;
    if !gaps.is_empty() {
        let text = format!(
            "{} of {all} steps are longer than {step}; {missing} timestamps are absent before {}",
            gaps.len(),
            times_at(table, &gaps)
        );
        diagnosis.found(
            Severity::Warning,
            "gaps",
            text,
            Some("rows are used as they follow one another; insert the absent ones if that is not meant"),
        );
    }
    if !odd.is_empty() {
        let text = format!("{} of {all} steps are no multiple of {step}: before {}", odd.len(), times_at(table, &odd));
        diagnosis.found(Severity::Warning, "irregular", text, None);
    }
}

/// How many steps lead from one time to a later one, if a whole number does.
fn steps_between(step: Step, from: NaiveDateTime, to: NaiveDateTime) -> Option<usize> {
    let count = match step {
        Step::Micros(micros) => (to - from).num_microseconds().unwrap_or(i64::MAX) / micros.max(1),
        Step::BusinessDay => {
            let days = (to - from).num_days();
            days - 2 * (days / 7) - if days % 7 > i64::from(to.weekday().num_days_from_monday()) { 2 } else { 0 }
        }
        Step::Months(months) | Step::MonthEnds(months) => {
            let number = |time: NaiveDateTime| i64::from(time.year()) * 12 + i64::from(time.month());
            (number(to) - number(from)) / i64::from(months.max(1))
        }
    };
    let count = usize::try_from(count).ok().filter(|count| *count > 0)?;
    (step.after(from, count) == Some(to)).then_some(count)
}

fn completeness(diagnosis: &mut Diagnosis, table: &Table, fill: Fill) {
    let mut infinite = Vec::new();
    let mut leading = Vec::new();
    for (index, name) in table.variates().iter().enumerate() {
        let values = table.variate(index);
        let missing = values.iter().filter(|value| value.is_nan()).count();
        if missing > 0 {
            diagnosis.missing.insert(name.clone(), missing);
        }
        if missing == values.len() {
            let text = format!("'{name}' has no value at all");
            diagnosis.found(Severity::Error, "missing", text, Some("leave it out with --columns"));
        } else if missing > 0 && values[0].is_nan() {
            leading.push(format!("'{name}'"));
        }
        if let Some(row) = values.iter().position(|value| value.abs() > Series::LARGEST) {
            infinite.push(format!("'{name}' on {}", table.place(row)));
        }
    }
    if !diagnosis.missing.is_empty() {
        let count: usize = diagnosis.missing.values().sum();
        let first = |row: usize| (0..table.variates().len()).any(|column| table.variate(column)[row].is_nan());
        let row = (0..table.len()).find(|row| first(*row)).unwrap_or_default();
        let columns: Vec<String> = diagnosis.missing.iter().map(|(name, count)| format!("'{name}' {count}")).collect();
        let text = format!("{count} missing values, the first on {}: {}", table.place(row), list(&columns));
        let severity = if fill == Fill::None { Severity::Error } else { Severity::Note };
        diagnosis.found(severity, "missing", text, Some("--fill forward or --fill linear"));
    }
    if !leading.is_empty() {
        let severity = if fill == Fill::Forward { Severity::Error } else { Severity::Note };
        let text = format!("nothing to carry forward at the start of {}", list(&leading));
        diagnosis.found(severity, "missing", text, Some("--fill linear, or cut these rows"));
    }
    if !infinite.is_empty() {
        let text = format!("infinite values, or beyond {:e}: {}", Series::LARGEST, list(&infinite));
        diagnosis.found(
            Severity::Error,
            "infinite",
            text,
            Some("correct these values, or leave the column out with --columns"),
        );
    }
}

fn oddities(diagnosis: &mut Diagnosis, table: &Table) {
    let mut constant = Vec::new();
    for (index, name) in table.variates().iter().enumerate() {
        let values = table.variate(index);
        let known = || values.iter().filter(|value| value.is_finite());
        let Some(first) = known().next() else { continue };
        if table.len() > 1 && known().all(|value| value == first) {
            constant.push(format!("'{name}' = {first}"));
        }
        let counts_on = || values.windows(2).all(|pair| pair[1] - pair[0] == 1.0);
        if index == 0 && values.len() > 2 && (values[0] == 0.0 || values[0] == 1.0) && counts_on() {
            let text = format!("'{name}' counts the rows");
            diagnosis.found(Severity::Warning, "row-number", text, Some("leave it out with --columns"));
        }
        for sentinel in sentinels(values) {
            let rows: Vec<usize> = (0..values.len()).filter(|row| values[*row] == sentinel).collect();
            let text = format!(
                "'{name}' is {sentinel} in {}, far from all its other values: {}",
                if rows.len() == 1 { "one row".to_string() } else { format!("{} rows", rows.len()) },
                places(table, &rows)
            );
            let remedy = "if it stands for a missing value, empty these cells and use --fill";
            diagnosis.found(Severity::Warning, "sentinel", text, Some(remedy));
        }
    }
    if !constant.is_empty() {
        let text = format!("{} constant: {}", columns_are(constant.len()), list(&constant));
        diagnosis.found(
            Severity::Warning,
            "constant",
            text,
            Some("leave them out with --columns; scaling maps them to 0"),
        );
    }
}

/// Names and numbers that may have been meant as something else.
fn names(diagnosis: &mut Diagnosis, table: &Table, options: &ReadOptions) {
    let names = table.variates();
    let counted = |from: usize| names.iter().enumerate().all(|(index, name)| *name == (index + from).to_string());
    let numbers = options.header && options.columns.is_none() && names.iter().all(|name| name.parse::<f64>().is_ok());
    if numbers && table.time_column().is_none() && !counted(0) && !counted(1) {
        let text = format!("line 1 holds numbers where names should be: {}", list(names));
        diagnosis.found(Severity::Warning, "header", text, Some("--no-header, if line 1 is data"));
    }
    let absent = options.time_column == TimeColumn::Auto && table.time_column().is_none() && table.len() > 1;
    if absent && loader::could_be_dates(table.variate(0)) {
        let text = format!("'{}' holds what may be dates, and is read as numbers", names[0]);
        let remedy = format!("--time-column '{}', if it is the time", names[0]);
        diagnosis.found(Severity::Warning, "dates", text, Some(&remedy));
    }
}

/// Values that stand for "missing" in files: they are written with nines only (-9999, 999.9), are
/// the smallest or largest of the column, and lie further from the rest than the rest is wide.
fn sentinels(values: &[f64]) -> Vec<f64> {
    let mut found = Vec::new();
    loop {
        let rest = || values.iter().copied().filter(|value| value.is_finite() && !found.contains(value));
        let low = rest().fold(f64::INFINITY, f64::min);
        let high = rest().fold(f64::NEG_INFINITY, f64::max);
        let next = [low, high].into_iter().find(|extreme| {
            let others = || rest().filter(|value| value != extreme);
            let (least, most) = others()
                .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
            let distance = (least - extreme).max(extreme - most);
            only_nines(*extreme) && least <= most && distance > (most - least).max(1.0)
        });
        match next {
            Some(sentinel) => found.push(sentinel),
            None => return found,
        }
    }
}

fn only_nines(value: f64) -> bool {
    let written = value.abs().to_string();
    let digits = written.chars().filter(|c| *c != '.');
    digits.clone().count() >= 2 && digits.clone().all(|digit| digit == '9')
}

fn parts(rows: usize, train: f64, test: f64, ratio: &str) -> Parts {
    // Products in f64, then cut off: the rule of the published splits.
    let part = |share: f64| (rows as f64 * share) as usize;
    let (train, test) = (part(train), part(test));
    let validation = rows - train - test;
    let longest_horizon = validation.min(test).min(train.saturating_sub(1));
    let longest_lookback = [24, 36, 48, 60, 96, 192, 336, 720]
        .into_iter()
        .filter(|horizon| *horizon <= longest_horizon)
        .map(|horizon| Fit { horizon, lookback: train - horizon })
        .filter(|fit| fit.lookback > 0)
        .collect();
    Parts { ratio: ratio.to_string(), train, validation, test, longest_horizon, longest_lookback }
}

fn rows_are(count: usize) -> String {
    if count == 1 { "1 row is".to_string() } else { format!("{count} rows are") }
}

fn rows_have(count: usize) -> String {
    if count == 1 { "1 row has".to_string() } else { format!("{count} rows have") }
}

fn columns_are(count: usize) -> String {
    if count == 1 { "1 column is".to_string() } else { format!("{count} columns are") }
}

fn places(table: &Table, rows: &[usize]) -> String {
    list(&rows.iter().map(|row| table.place(*row)).collect::<Vec<_>>())
}

fn times_at(table: &Table, rows: &[usize]) -> String {
    list(&rows.iter().map(|row| format!("{} ({})", table.timestamps()[*row], table.place(*row))).collect::<Vec<_>>())
}

/// The first few, and how many more there are.
fn list(items: &[String]) -> String {
    let shown = items[..items.len().min(SHOWN)].join(", ");
    match items.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn examined(text: &str, options: &ReadOptions) -> Diagnosis {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("data.csv");
        fs::write(&file, text).unwrap();
        examine(&file, options).unwrap()
    }

    fn of_kind(diagnosis: &Diagnosis, kind: &str) -> Option<(Severity, String)> {
        let finding = diagnosis.findings.iter().find(|finding| finding.kind == kind)?;
        Some((finding.severity, finding.text.clone()))
    }

    const SICK: &str = "date,a,b\n2020-01-01,1,7\n2020-01-02,,7\n2020-01-02,3,7\n2020-01-04,-9999,7\n2020-01-03,5,7\n\
                        2020-01-07,4,7\n2020-01-08,4,7\n";

    #[test]
    fn everything_is_reported_at_once() {
        let diagnosis = examined(SICK, &ReadOptions::default());
        let found = |kind| of_kind(&diagnosis, kind).unwrap_or_else(|| panic!("{kind}: {diagnosis:?}"));
        assert_eq!(found("unordered"), (Severity::Error, "1 row is earlier than the row before: line 6".to_string()));
        assert_eq!(found("duplicates").1, "1 row has a timestamp that is already there: 2020-01-02 00:00:00 (line 4)");
        assert_eq!(found("missing").1, "1 missing values, the first on line 3: 'a' 1");
        assert_eq!(found("constant").1, "1 column is constant: 'b' = 7");
        assert_eq!(found("sentinel").1, "'a' is -9999 in one row, far from all its other values: line 5");
        assert_eq!(
            found("gaps").1,
            "1 of 5 steps are longer than 1d; 2 timestamps are absent before 2020-01-07 00:00:00 (line 7)"
        );
        assert_eq!((diagnosis.missing_timestamps, diagnosis.irregular_steps, diagnosis.season), (2, 1, Some(7)));
        assert!(!diagnosis.usable());
    }

    #[test]
    fn what_the_options_remedy_is_no_error() {
        let options =
            ReadOptions { fill: Fill::Linear, duplicates: Duplicates::Mean, sort: true, ..ReadOptions::default() };
        assert!(examined(SICK, &options).usable());
    }

    #[test]
    fn what_is_missing_is_looked_for_where_it_is_filled() -> Result<()> {
        let missing_first = "date,a\n2020-01-01,\n2020-01-02,1\n2020-01-03,2\n";
        let sorted_first = "date,a\n2020-01-02,5\n2020-01-01,\n2020-01-03,2\n";
        let sorted_second = "date,a\n2020-01-02,\n2020-01-01,5\n2020-01-03,2\n";
        let joined = "date,a\n2020-01-01,\n2020-01-01,5\n2020-01-03,2\n";
        let forward = ReadOptions { fill: Fill::Forward, sort: true, ..ReadOptions::default() };
        let mean = ReadOptions { duplicates: Duplicates::Mean, ..ReadOptions::default() };
        for (text, options, usable) in [
            (missing_first, &forward, false),
            (sorted_first, &forward, false),
            (sorted_second, &forward, true),
            (joined, &mean, true),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("data.csv");
            fs::write(&file, text).unwrap();
            assert_eq!(examine(&file, options)?.usable(), usable, "{text}");
            assert_eq!(loader::read(&file, "data", options).is_ok(), usable, "{text}");
        }
        Ok(())
    }

    #[test]
    fn faults_of_several_lines_are_reported_together() {
        let diagnosis = examined("a,b\n1,x\n2,3,4\n5,y\n", &ReadOptions::default());
        let texts: Vec<&str> = diagnosis.findings.iter().map(|finding| finding.text.as_str()).collect();
        assert_eq!(
            texts,
            [
                "line 2: 'b' is not a number: \"x\"",
                "line 3: 3 fields, the header has 2",
                "line 4: 'b' is not a number: \"y\""
            ]
        );
    }

    #[test]
    fn numbers_that_may_be_dates_or_data_are_named() {
        let found = |text: &str, kind| of_kind(&examined(text, &ReadOptions::default()), kind).map(|found| found.1);
        assert!(found("year,v\n1960,1\n1961,2\n1962,5\n", "dates").unwrap().starts_with("'year' holds"));
        assert!(found("day,v\n20200131,1\n20200201,2\n", "dates").is_some());
        assert!(found("load,v\n1960,1\n1955,2\n1962,5\n", "dates").is_none());
        assert!(found("1.5,2\n3,4\n5,7\n", "header").unwrap().contains("1.5, 2"));
        assert!(found("0,1\n3,4\n5,7\n", "header").is_none());
        let options = ReadOptions { time_column: TimeColumn::Named("year".into()), ..ReadOptions::default() };
        let diagnosis = examined("year,v\n1960,1\n1961,2\n1962,5\n", &options);
        assert!(diagnosis.usable() && diagnosis.step.unwrap().to_string() == "1y", "{diagnosis:?}");
    }

    #[test]
    fn large_values_that_belong_are_no_sentinels() {
        assert!(sentinels(&[9990.0, 9999.0, 9980.0, 9000.0]).is_empty());
        assert_eq!(sentinels(&[1.0, -9999.0, 2.0, 99999.0]), [99999.0, -9999.0]);
    }

    #[test]
    fn splits_cut_off_like_the_published_ones() {
        let split = parts(730, 0.7, 0.2, "70/10/20");
        assert_eq!((split.train, split.validation, split.test, split.longest_horizon), (510, 74, 146, 74));
    }
}
