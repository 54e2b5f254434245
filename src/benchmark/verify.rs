//! Running a task again from its record alone, and saying what differs.

use std::{
    collections::BTreeSet,
    fmt,
    path::{Path, PathBuf},
};

use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Record, failure,
    record::{DataRecord, entries, is_record},
};
use crate::{Error, Result};

/// A field of a record that a run of today does not give again.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Where in the record, e.g. `scores.per_step.mse[3]`.
    pub field: String,
    pub recorded: Value,
    pub now: Value,
}

impl Difference {
    /// How far apart two numbers are, relative to the recorded one; infinite where they are no numbers.
    pub fn distance(&self) -> f64 {
        match (self.recorded.as_f64(), self.now.as_f64()) {
            (Some(recorded), Some(now)) => (now - recorded).abs() / recorded.abs(),
            _ => f64::INFINITY,
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} recorded, {} now", self.field, self.recorded, self.now)?;
        match self.distance() {
            distance if distance.is_finite() => write!(f, " ({distance:.1e} apart)"),
            _ => Ok(()),
        }
    }
}

/// What of `recorded` a run, which gave `now`, did not give again, in the order of the record.
///
/// Compared is all that follows from the task and the data, numbers to the last bit: not what ran it, nor how
/// long it took. A record from before forecasts were hashed or kept is not held to have them, whichever of both it is.
///
/// # Errors
/// If a record cannot be written down.
pub fn differences(recorded: &Record, now: &Record) -> Result<Vec<Difference>> {
    let (mut recorded, mut now) = (recorded.clone(), now.clone());
    if recorded.scores.forecasts.is_empty() || now.scores.forecasts.is_empty() {
        recorded.scores.forecasts.clear();
        now.scores.forecasts.clear();
    }
    if recorded.examples.is_empty() || now.examples.is_empty() {
        recorded.examples.clear();
        now.examples.clear();
    }
    let mut found = Vec::new();
    compare(&what_follows(recorded)?, &what_follows(now)?, String::new(), &mut found);
    Ok(found)
}

/// How what went into two records differs: params, protocol, data. `recorded` is of `one`, `now` of `other`.
///
/// # Errors
/// If a record cannot be written down.
pub fn settings_apart(one: &Record, other: &Record) -> Result<Vec<Difference>> {
    let settings = |record: &Record| {
        let Record { task, data, windows_train, windows_valid, windows_scored, .. } = record;
        let windows = json!({"train": windows_train, "valid": windows_valid, "scored": windows_scored});
        // The scaler follows from data and split.
        let data = DataRecord { scaler: None, ..data.clone() };
        let settings = json!({"task": task, "data": data, "windows": windows, "version": record.software.version});
        serde_json::to_value(settings).map_err(|error| Error::other(error.to_string()))
    };
    let mut found = Vec::new();
    compare(&settings(one)?, &settings(other)?, String::new(), &mut found);
    Ok(found)
}

fn what_follows(mut record: Record) -> Result<Value> {
    record.curve.iter_mut().for_each(|epoch| epoch.seconds = 0.0);
    let mut value = serde_json::to_value(record).map_err(|error| Error::other(error.to_string()))?;
    if let Value::Object(fields) = &mut value {
        for field in ["software", "machine", "seconds", "peak_memory_mb"] {
            fields.remove(field);
        }
    }
    Ok(value)
}

fn compare(recorded: &Value, now: &Value, field: String, found: &mut Vec<Difference>) {
    match (recorded, now) {
        (Value::Object(left), Value::Object(right)) => {
            let only_right = right.keys().filter(|key| !left.contains_key(*key));
            for key in left.keys().chain(only_right) {
                let field = if field.is_empty() { key.clone() } else { format!("{field}.{key}") };
                let [left, right] = [left, right].map(|side| side.get(key).unwrap_or(&Value::Null));
                compare(left, right, field, found);
            }
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            for (index, (left, right)) in left.iter().zip(right).enumerate() {
                compare(left, right, format!("{field}[{index}]"), found);
            }
        }
        _ if recorded == now => {}
        _ => found.push(Difference { field, recorded: recorded.clone(), now: now.clone() }),
    }
}

/// The records that `paths` name: files as they are, of folders all in them and below, in the order of their
/// names. What was set aside as superseded, failed or is unfinished is left out.
///
/// # Errors
/// If a folder cannot be read.
pub fn record_files(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() { below(path, &mut files)? } else { files.push(path.clone()) }
    }
    Ok(files)
}

/// The folders that hold records or failures, `dir` and those below it.
///
/// # Errors
/// If a folder cannot be read.
pub fn results_folders(dir: &Path) -> Result<BTreeSet<PathBuf>> {
    let (mut folders, mut open) = (BTreeSet::new(), vec![dir.to_path_buf()]);
    while let Some(dir) = open.pop() {
        let here = entries(&dir)?;
        if here.iter().any(|path| is_record(path) && !path.is_dir()) || !failure::files(&dir)?.is_empty() {
            folders.insert(dir);
        }
        open.extend(here.into_iter().filter(|path| path.is_dir() && !is_beside(path)));
    }
    Ok(folders)
}

fn is_beside(folder: &Path) -> bool {
    super::BESIDE_RECORDS.iter().any(|name| folder.ends_with(name))
}

fn below(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for path in entries(dir)? {
        if path.is_dir() {
            if !is_beside(&path) {
                below(&path, files)?;
            }
        } else if is_record(&path) {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(recorded: &Value, now: &Value) -> Vec<String> {
        let mut found = Vec::new();
        compare(recorded, now, String::new(), &mut found);
        found.into_iter().map(|difference| difference.field).collect()
    }

    #[test]
    fn every_field_that_differs_is_named() {
        let recorded = json!({"a": {"b": [1.0, 2.0], "c": "x"}, "gone": 1, "list": [1]});
        let now = json!({"a": {"b": [1.0, 2.5], "c": "x"}, "list": [1, 2], "new": true});
        assert_eq!(found(&recorded, &now), ["a.b[1]", "gone", "list", "new"]);
        assert!(found(&recorded, &recorded).is_empty());
    }

    #[test]
    fn one_bit_of_a_number_is_a_difference() {
        let (recorded, now) = (json!({"mse": 0.5}), json!({"mse": f64::from_bits(0.5f64.to_bits() + 1)}));
        assert_eq!(found(&recorded, &now), ["mse"]);
    }

    #[test]
    fn distances_are_relative_to_what_was_recorded() {
        let difference = |recorded, now| Difference { field: String::new(), recorded, now };
        assert!((difference(json!(0.5), json!(0.6)).distance() - 0.2).abs() < 1e-12);
        assert_eq!(difference(json!("a"), json!(0.6)).distance(), f64::INFINITY);
    }
}
