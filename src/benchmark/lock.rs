//! The lock file of a results folder: which data and which versions its records are of.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use serde::{Deserialize, Serialize};

use super::{Record, record::write_whole};
use crate::{Error, Result};

/// The name of the file, beside the records.
pub const LOCK_FILE: &str = "lock.toml";

const HEAD: &str = "# Which data and versions the records here are of. `longcast bench --locked` runs on no other.\n\n";

/// What a lock file says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// Of this program.
    pub versions: BTreeSet<String>,
    /// The git revisions it was built from.
    pub revisions: BTreeSet<String>,
    /// By the name of the data set.
    pub data: BTreeMap<String, LockedData>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedData {
    /// Of its content, after expansion where it was compressed.
    pub sha256: String,
    pub rows: usize,
    pub variates: usize,
}

impl Lock {
    /// What `records` are of; where two are of different contents of one data set, the later one counts.
    pub fn of<'a>(records: impl IntoIterator<Item = &'a Record>) -> Self {
        let mut lock = Self::default();
        for Record { task, data, software, .. } in records {
            lock.versions.insert(software.version.clone());
            lock.revisions.insert(software.revision.clone());
            let data = LockedData { sha256: data.sha256.clone(), rows: data.rows, variates: data.variates };
            lock.data.insert(task.dataset.clone(), data);
        }
        lock
    }

    /// Writes that of the records in a results folder, if there are any. Of two contents of one data set the one that is
    /// `used` now counts, by name and sha256.
    ///
    /// # Errors
    /// If the folder cannot be read or written.
    pub(super) fn write_of(dir: &Path, used: &BTreeMap<String, String>) -> Result<()> {
        let (records, _) = Record::read_all(dir)?;
        match records.is_empty() {
            true => Ok(()),
            false => {
                let mut records: Vec<&Record> = records.iter().map(|(_, record)| record).collect();
                // The last one counts.
                records.sort_by_key(|record| used.get(&record.task.dataset) == Some(&record.data.sha256));
                Self::of(records).write(dir)
            }
        }
    }

    /// The lock file of a results folder, if there is one.
    ///
    /// # Errors
    /// If it cannot be read or is none.
    pub fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(LOCK_FILE);
        match fs::read_to_string(&path) {
            Ok(text) => toml::from_str(&text).map(Some).map_err(|error| Error::file(&path, error.to_string())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", &path)(error)),
        }
    }

    /// Writes it beside the records, if it says something else than what is there.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let text = toml::to_string(self).map_err(|error| Error::other(error.to_string()))?;
        let (path, text) = (dir.join(LOCK_FILE), format!("{HEAD}{text}"));
        match fs::read_to_string(&path) {
            Ok(there) if there == text => Ok(()),
            _ => write_whole(&path, text.as_bytes()),
        }
    }

    /// Whether this program is one that the records are of.
    ///
    /// # Errors
    /// If it is not.
    pub fn allows_version(&self, version: &str) -> Result<()> {
        let versions: Vec<&str> = self.versions.iter().map(String::as_str).collect();
        match self.versions.contains(version) {
            true => Ok(()),
            false => Err(Error::other(format!(
                "{LOCK_FILE} is of version {}, and this is {version}: run that version, or go without --locked",
                versions.join(", ")
            ))),
        }
    }

    /// Whether the data set `name` has the content that the records are of, if there are any of it.
    ///
    /// # Errors
    /// If it has another.
    pub fn allows_data(&self, name: &str, sha256: &str) -> Result<()> {
        match self.data.get(name) {
            Some(data) if data.sha256 != sha256 => Err(Error::other(format!(
                "the data of {name} is not what {LOCK_FILE} is of (sha256 {}…, not {}…)",
                short(sha256),
                short(&data.sha256)
            ))),
            _ => Ok(()),
        }
    }
}

fn short(sha256: &str) -> &str {
    sha256.get(..12).unwrap_or(sha256)
}
