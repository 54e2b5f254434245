//! A task that failed: its reason is kept beside the records, so that a table shows it as failed.

use std::{
    any::Any,
    fmt, fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    record::{self, FORMAT, Machine, Software, name_of, read_each, records_in, write_in},
    suite::Task,
    task::Prepared,
};
use crate::{Error, Result, forecaster::Device};

/// The folder beside the records that holds failures.
pub(super) const FOLDER: &str = "failed";

/// A task that was run and gave no score.
///
/// The next run tries it again; when it succeeds, this is gone.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    pub format: u32,
    pub task: Task,
    /// sha256 of the data it was run on.
    pub data: String,
    /// How many series that has.
    pub series: usize,
    /// Why, in words.
    pub reason: String,
    pub software: Software,
    pub machine: Machine,
}

impl Failure {
    pub(super) fn new(task: &Task, data: &Prepared, error: &Error, device: Device) -> Self {
        Self {
            format: FORMAT,
            task: task.clone(),
            data: data.sha256().to_string(),
            series: data.series(),
            reason: error.to_string(),
            software: Software::this(),
            machine: Machine::this(device),
        }
    }

    /// Writes it under the `name` that the record would have in the results folder `dir`.
    pub(super) fn write(&self, dir: &Path, name: &str) -> Result<()> {
        write_in(&dir.join(FOLDER), name, record::pretty(self)?.as_bytes())
    }

    /// Copies the failures of the results folder `from` into `dir`, but for those that `has_record` knows a record of
    /// by the name without its hash, and those that are there.
    pub(super) fn copy_all(from: &Path, dir: &Path, has_record: impl Fn(&str) -> bool) -> Result<()> {
        for path in files(from)? {
            let name = name_of(&path);
            if !has_record(record::without_hash(&name)) && !dir.join(FOLDER).join(&name).exists() {
                let content = fs::read(&path).map_err(Error::io("read", &path))?;
                write_in(&dir.join(FOLDER), &name, &content)?;
            }
        }
        Ok(())
    }

    /// All failures of the results folder `dir`, in the order of their names, and what could not be read.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn read_all(dir: &Path) -> Result<(Vec<Self>, Vec<Error>)> {
        let (failures, errors) = read_each(files(dir)?, Self::read);
        Ok((failures.into_iter().map(|(_, failure)| failure).collect(), errors))
    }

    fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
        serde_json::from_str(&text).map_err(|error| Error::file(path, format!("not a failure: {error}")))
    }

    /// Forgets the failures of the task whose record is called `name`, whatever went into them.
    pub(super) fn forget(dir: &Path, name: &str) -> Result<()> {
        let task = record::without_hash(name);
        let same = |path: &PathBuf| record::without_hash(&name_of(path)) == task;
        for path in files(dir)?.into_iter().filter(same) {
            // Another process may have forgotten it.
            match fs::remove_file(&path) {
                Err(error) if path.exists() => return Err(Error::io("remove", &path)(error)),
                _ => {}
            }
        }
        // Only an empty folder goes.
        let _ = fs::remove_dir(dir.join(FOLDER));
        Ok(())
    }
}

/// The files of the failures in the results folder `dir`.
pub(super) fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let folder = dir.join(FOLDER);
    match records_in(&folder) {
        // It goes when it is empty, and may have gone just now.
        Err(_) if !folder.is_dir() => Ok(vec![]),
        files => files,
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, seed {}: {}", self.task, self.task.seed, self.reason)
    }
}

/// What `run` gives; a panic in it, as of a forecaster from outside, is an error like others.
///
/// # Errors
/// As `run`, and if it panics.
pub fn caught<T>(run: impl FnOnce() -> Result<T>) -> Result<T> {
    // What a panic leaves half done belongs to the task, and goes with it.
    catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|panic| Err(Error::other(format!("panicked: {}", words(&*panic)))))
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".into())
}
