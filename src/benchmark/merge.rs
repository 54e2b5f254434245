//! Putting the records of several results folders of one suite together.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
};

use super::{
    Difference, Failure, Lock, Record, SUITE_FILE, Suite, Task, differences,
    record::{self, entries, name_of, read_each, records_in, write_whole},
    records_folder,
    task::resolved_params,
};
use crate::{Error, Result, data::SplitRule, forecaster::Registry};

/// What came of putting records together.
#[derive(Debug)]
pub struct Merged {
    pub suite: Suite,
    /// The folder that holds all records now.
    pub dir: PathBuf,
    /// Records that were copied into it.
    pub copied: usize,
    /// Records that stood there before.
    pub kept: usize,
    pub conflicts: Vec<Conflict>,
    /// Files that are no whole records, or not of what their names say; they are not merged.
    pub unreadable: Vec<Error>,
    pub missing: Vec<Missing>,
}

/// Two records of one task that say different things.
#[derive(Debug)]
pub struct Conflict {
    pub task: Task,
    /// The first one that was found.
    pub first: PathBuf,
    pub second: PathBuf,
    pub differences: Vec<Difference>,
}

/// A task of the suite without a record.
#[derive(Debug)]
pub struct Missing {
    pub task: Task,
    /// There is one of other params.
    pub outdated: Option<PathBuf>,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} · seed {}", self.task, self.task.seed)?;
        match &self.outdated {
            Some(path) => write!(f, " ({} is of other params)", path.display()),
            None => Ok(()),
        }
    }
}

struct Found {
    path: PathBuf,
    record: Record,
    text: String,
}

/// Copies the records of the results folders `from` into the results folder `into`, which may be one of them.
///
/// Of records with the same numbers the first is kept; what stands in `into` comes first. Of two that differ
/// neither is copied, and nothing is overwritten. Failures of tasks without a record are copied too. `suite.toml` and
/// `lock.toml` are written as a run does.
///
/// # Errors
/// If a folder cannot be read or written, holds no records of one suite, or those of another suite than the first.
pub fn merge(from: &[PathBuf], into: &Path, models: &Registry) -> Result<Merged> {
    let folders: Vec<PathBuf> = from.iter().map(|dir| records_of(dir)).collect::<Result<_>>()?;
    let first = folders.first().ok_or_else(|| Error::other("there are no folders to merge"))?;
    let no_suite = |dir: &Path| Error::file(dir, format!("holds no {SUITE_FILE}"));
    let suite = Suite::of_folder(first)?.ok_or_else(|| no_suite(first))?;
    let dir = records_folder(into, &suite.name);
    let before = if dir.join(SUITE_FILE).is_file() { vec![dir.clone()] } else { vec![] };
    for other in before.iter().chain(&folders[1..]) {
        let other_suite = Suite::of_folder(other)?.ok_or_else(|| no_suite(other))?;
        if (&other_suite.name, &other_suite.text) != (&suite.name, &suite.text) {
            let (other, first) = (other.join(SUITE_FILE), first.join(SUITE_FILE));
            let message = format!("another suite than {}: merge folders of one suite", first.display());
            return Err(Error::file(&other, message));
        }
    }

    let (all, unreadable) = read_each(files(before.iter().chain(&folders))?, read);
    let (mut found, mut conflicts) = (BTreeMap::<String, Found>::new(), vec![]);
    for (path, next) in all {
        let task = record::without_hash(&name_of(&path)).to_string();
        match found.get(&task) {
            None => drop(found.insert(task, next)),
            Some(first) => conflicts.extend(conflict(first, &next)?),
        }
    }

    fs::create_dir_all(&dir).map_err(Error::io("make the folder", &dir))?;
    write_whole(&dir.join(SUITE_FILE), suite.text.as_bytes())?;
    let (mut copied, mut kept) = (0, 0);
    for Found { path, text, .. } in found.values() {
        let target = dir.join(name_of(path));
        if conflicts.iter().any(|conflict| conflict.first == *path) {
            continue;
        }
        match target.exists() {
            true => kept += 1,
            false => {
                write_whole(&target, text.as_bytes())?;
                copied += 1;
            }
        }
    }
    // A task that failed in one part and has a record in another did not fail.
    for from in &folders {
        Failure::copy_all(from, &dir, |task| found.contains_key(task))?;
    }
    found.values().try_for_each(|found| Failure::forget(&dir, &name_of(&found.path)))?;
    Lock::write_of(&dir, &BTreeMap::new())?;
    let missing = missing(&suite, &found, models)?;
    Ok(Merged { suite, dir, copied, kept, conflicts, unreadable, missing })
}

/// The folder of records that `dir` is, or that is the one below it.
fn records_of(dir: &Path) -> Result<PathBuf> {
    if dir.join(SUITE_FILE).is_file() {
        return Ok(dir.to_path_buf());
    }
    let below = dir.join("records");
    let suites = if below.is_dir() { entries(&below)? } else { vec![] };
    let suites: Vec<PathBuf> = suites.into_iter().filter(|folder| folder.join(SUITE_FILE).is_file()).collect();
    match &suites[..] {
        [one] => Ok(one.clone()),
        [] => Err(Error::file(dir, "no results folder of `longcast bench`: it holds no records with their suite.toml")),
        [one, ..] => {
            let message = format!("holds records of {} suites: name one, such as {}", suites.len(), one.display());
            Err(Error::file(dir, message))
        }
    }
}

fn files<'a>(folders: impl Iterator<Item = &'a PathBuf>) -> Result<Vec<PathBuf>> {
    let (mut seen, mut files) = (Vec::new(), Vec::new());
    for folder in folders {
        // A folder may be named twice, or be the one that is merged into.
        let whole = folder.canonicalize().map_err(Error::io("read the folder", folder))?;
        if !seen.contains(&whole) {
            seen.push(whole);
            files.extend(records_in(folder)?);
        }
    }
    Ok(files)
}

fn read(path: &Path) -> Result<Found> {
    let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
    let record = Record::parse(path, &text)?;
    let expected = record::file_name(&record.task, &record.data)?;
    match name_of(path) == expected {
        true => Ok(Found { path: path.to_path_buf(), record, text }),
        false => Err(Error::file(path, format!("what it holds is named {expected}; run the suite again to redo it"))),
    }
}

fn conflict(first: &Found, second: &Found) -> Result<Option<Conflict>> {
    let mut differences = differences(&first.record, &second.record)?;
    // What went in comes first: it explains what came out.
    differences.sort_by_key(|difference| !["task.", "data."].iter().any(|part| difference.field.starts_with(part)));
    Ok((!differences.is_empty()).then(|| Conflict {
        task: first.record.task.clone(),
        first: first.path.clone(),
        second: second.path.clone(),
        differences,
    }))
}

fn missing(suite: &Suite, found: &BTreeMap<String, Found>, models: &Registry) -> Result<Vec<Missing>> {
    let mut missing = Vec::new();
    for task in &suite.tasks {
        let mut outdated = None;
        let mut there = false;
        for Found { path, record, .. } in found.values().filter(|found| of_same_name(task, &found.record.task)) {
            match is_of(record, task, models)? {
                true => there = true,
                false => outdated = Some(path.clone()),
            }
        }
        if !there {
            missing.push(Missing { task: task.clone(), outdated });
        }
    }
    Ok(missing)
}

fn of_same_name(task: &Task, recorded: &Task) -> bool {
    (&task.dataset, &task.name, task.lookback, task.seed)
        == (&recorded.dataset, &recorded.name, recorded.lookback, recorded.seed)
        // 0 stands for the horizon of the data set.
        && (task.horizon == 0 || task.horizon == recorded.horizon)
}

/// Whether `recorded` is what becomes of `task` when it runs, as far as can be told without the data.
fn is_of(record: &Record, task: &Task, models: &Registry) -> Result<bool> {
    let recorded = &record.task;
    let preset = task.preset.as_deref();
    let resolved = resolved_params(models, &task.model, preset, &task.params, &task.dataset, recorded.horizon)?;
    let folder = |task: &Task| task.init.as_ref().map(|init| init.folder.clone());
    Ok(resolved == (recorded.preset.clone(), recorded.params.clone())
        && (&task.model, &task.protocol.of_windows(), task.learning, &task.levels)
            == (&recorded.model, &recorded.protocol, recorded.learning, &recorded.levels)
        && task.protocol.calendar.is_none_or(|calendar| calendar == record.data.calendar)
        && of_split(record, task.protocol.split.as_ref())
        && folder(task) == folder(recorded))
}

/// Whether a record is of the rows that `rule` gives, where there is a rule.
fn of_split(record: &Record, rule: Option<&SplitRule>) -> bool {
    rule.is_none_or(|rule| rule.split(record.data.rows).is_ok_and(|split| record.data.split.as_ref() == Some(&split)))
}
