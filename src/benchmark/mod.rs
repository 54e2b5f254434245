//! Running a suite: load, fit, evaluate, record; what is recorded already is not run again.
//!
//! This layer is handed a registry; it knows no model by name, and not how a table looks.

mod failure;
mod lock;
mod merge;
mod pretrain;
mod protocol;
mod record;
mod shard;
mod suite;
mod task;
mod verify;
mod watched;

use std::{
    collections::BTreeMap,
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::Duration,
};

pub use crate::evaluator::Example;
pub use failure::{Failure, caught};
pub use lock::{LOCK_FILE, Lock, LockedData};
pub use merge::{Conflict, Merged, Missing, merge};
pub use pretrain::{PretrainPlan, Pretrained, Source, pretrain, unfinished_of};
pub use protocol::{NamedProtocol, Protocol};
pub use record::{DataRecord, FORMAT, Machine, Record, Seconds, Software, file_safe, write_whole};
pub use shard::{FIRST_INDEX, SHARDS, Shard, estimated_cost};
pub use suite::{Beside, Init, Learning, SUITE_FILE, Suite, Task};
pub use task::{Prepared, run_task};
pub use verify::{Difference, differences, record_files, results_folders, settings_apart};
pub use watched::Watched;

use crate::{
    Error, Result,
    data::Catalogue,
    forecaster::{Checkpoint, Device, EpochReport, FitProgress, Registry},
};

/// What happens to a task.
#[derive(Debug)]
pub enum Event<'a> {
    /// It is recorded already.
    Kept,
    /// It starts.
    Started,
    /// Its model is being fitted.
    Fitting(FitProgress),
    /// One epoch of its training is over.
    Epoch(&'a EpochReport),
    /// So many windows of so many are scored.
    Scoring { done: usize, total: usize },
    /// It is done and its record is written.
    Recorded(&'a Record),
    /// It failed; a [`Failure`] is kept in place of a record, unless it could not be run at all.
    Failed(&'a Error),
    /// A record in the results folder is not whole or of other data; it is made again.
    Warning(&'a str),
}

/// Hears how a suite goes and may end it; `position` counts tasks from 0.
pub trait BenchObserver {
    /// Called for each event of each task; `Break` ends the run, with the task in flight unrecorded.
    fn event(&mut self, position: usize, task: &Task, event: Event<'_>) -> ControlFlow<()>;
}

/// How a run of a suite ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub recorded: usize,
    pub kept: usize,
    pub failed: usize,
    /// Another process is at work on them.
    pub elsewhere: usize,
    /// The observer ended it before all tasks were done.
    pub interrupted: bool,
}

/// How a suite is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    pub device: Device,
    /// Run on nothing but the data and the version that the lock file of the results folder names.
    pub locked: bool,
    /// A fit that takes longer leaves how far it has come after each epoch, and is gone on with by the next run.
    pub checkpoint_after: Duration,
    /// The process that watches over this one, where there is one.
    pub watched: Option<Watched>,
}

impl Default for Run {
    fn default() -> Self {
        Self { device: Device::Cpu, locked: false, checkpoint_after: Duration::from_secs(60), watched: None }
    }
}

/// Runs the tasks of `suite` that `dir` holds no record of.
///
/// Tasks run in the order of the suite. A task that fails, or whose forecaster panics, is reported to the
/// observer, its reason is kept, the others go on, and the next run tries it again. Each record is written when
/// its task ends; a run that is killed loses at most the task in flight, and of a long fit its last epoch. At the
/// end a lock file says which data and versions the records are of; with `locked` tasks run only on those.
///
/// # Errors
/// If the folder cannot be written, which is found before any work or with the first record, or `locked` and there
/// is no lock file, or one of another version.
pub fn run(
    suite: &Suite,
    models: &Registry,
    catalogue: &Catalogue,
    dir: &Path,
    how: Run,
    observer: &mut dyn BenchObserver,
) -> Result<Outcome> {
    let Run { device, locked, checkpoint_after, watched } = how;
    fs::create_dir_all(dir).map_err(Error::io("make the folder", dir))?;
    let lock = match (Lock::read(dir)?, locked) {
        (None, true) => return Err(Error::file(dir, format!("there is no {LOCK_FILE} to keep to"))),
        (lock, _) => lock.unwrap_or_default(),
    };
    if locked {
        lock.allows_version(&Software::this().version)?;
    }
    write_whole(&dir.join(SUITE_FILE), suite.text.as_bytes())?;
    let there: Vec<String> = record::records_in(dir)?.iter().map(|path| record::name_of(path)).collect();
    let mut outcome = Outcome::default();
    let mut prepared: Option<Prepared> = None;
    let mut unusable: Option<&Task> = None;
    let mut used = BTreeMap::new();
    let mut full = false;
    for (position, task) in suite.tasks.iter().enumerate() {
        // Said once, for the first task that needs it.
        let same_data = |other: &&Task| other.dataset == task.dataset && other.protocol.prepares_like(&task.protocol);
        if unusable.as_ref().is_some_and(same_data) {
            outcome.failed += 1;
            continue;
        }
        let mut run = || -> Result<Done> {
            // Neighbouring tasks share their data; the suite lists them by data set.
            let data = match &mut prepared {
                Some(data) if data.is_for(task) => data,
                slot => {
                    let data = Prepared::open(catalogue, &task.dataset, &task.protocol);
                    let data = data.and_then(|data| match lock.allows_data(&task.dataset, data.sha256()) {
                        Err(error) if locked => Err(error),
                        Err(error) => {
                            let text = format!("{error}: its tasks run anew");
                            interruptible(observer.event(position, task, Event::Warning(&text))).map(|()| data)
                        }
                        Ok(()) => Ok(data),
                    });
                    let data = data.inspect_err(|_| unusable = Some(task))?;
                    used.insert(task.dataset.clone(), data.sha256().to_string());
                    slot.insert(data)
                }
            };
            let task = data.resolve(models, task)?;
            let name = data.file_name(&task)?;
            set_aside(dir, &there, &name)?;
            let path = dir.join(&name);
            if path.is_file() {
                match Record::read(&path) {
                    Ok(_) => {
                        Failure::forget(dir, &name)?;
                        return Ok(Done::Before);
                    }
                    Err(error) => interruptible(observer.event(position, &task, Event::Warning(&error.to_string())))?,
                }
            }
            let unfinished = dir.join(UNFINISHED).join(&name);
            let (at_work, refused) = match watched.as_ref().map(|watched| watched.at_work(&unfinished)).transpose() {
                Ok(Some(None)) => {
                    let text = format!("{task}, seed {}: another process is at it, and it is left to that", task.seed);
                    interruptible(observer.event(position, &task, Event::Warning(&text)))?;
                    return Ok(Done::Elsewhere);
                }
                // Another process may have ended just now.
                Ok(Some(Some(_))) if Record::read(&path).is_ok() => return Ok(Done::Before),
                Ok(at_work) => (at_work, Ok(())),
                Err(error) => (None, Err(error)),
            };
            interruptible(observer.event(position, &task, Event::Started))?;
            let mut hear = |event: Event<'_>| observer.event(position, &task, event);
            let checkpoint = Some(checkpoint(&unfinished, checkpoint_after));
            let work = || {
                refused?;
                failure::caught(|| run_task(models, &task, data, device, checkpoint, &mut hear))
            };
            let record = match work() {
                Err(error) if !matches!(error, Error::Interrupted) => {
                    Failure::forget(dir, &name)?;
                    // What a disk did not take may be taken next time; what was learnt until then is still there.
                    if !matches!(error, Error::Io { .. }) {
                        remove_unfinished(&unfinished)?;
                    }
                    Failure::new(&task, data, &error, device).write(dir, &name)?;
                    return Err(error);
                }
                ended => ended?,
            };
            record.write(&path).inspect_err(|_| full = true)?;
            Failure::forget(dir, &name)?;
            remove_unfinished(&unfinished)?;
            drop(at_work);
            interruptible(observer.event(position, &task, Event::Recorded(&record))).map(|()| Done::Now)
        };
        let flow = match run() {
            Ok(Done::Now) => {
                outcome.recorded += 1;
                ControlFlow::Continue(())
            }
            Ok(Done::Before) => {
                outcome.kept += 1;
                observer.event(position, task, Event::Kept)
            }
            Ok(Done::Elsewhere) => {
                outcome.elsewhere += 1;
                ControlFlow::Continue(())
            }
            Err(Error::Interrupted) => ControlFlow::Break(()),
            // Whatever comes next could not be recorded either.
            Err(error) if full => return Err(error),
            Err(error) => {
                outcome.failed += 1;
                observer.event(position, task, Event::Failed(&error))
            }
        };
        if flow.is_break() {
            outcome.interrupted = true;
            break;
        }
    }
    Lock::write_of(dir, &used)?;
    Ok(outcome)
}

/// The tasks of `suite` that `dir` holds no record of, which [`run`] would run. A folder that is not there holds none.
///
/// Data is opened only where there is a record that may be of the task; a task whose data cannot be is among them, for
/// `run` says why.
///
/// # Errors
/// If the folder cannot be read.
pub fn missing<'a>(suite: &'a Suite, models: &Registry, catalogue: &Catalogue, dir: &Path) -> Result<Vec<&'a Task>> {
    if !dir.is_dir() {
        return Ok(suite.tasks.iter().collect());
    }
    let there: BTreeMap<String, PathBuf> =
        record::records_in(dir)?.into_iter().map(|path| (record::name_of(&path), path)).collect();
    let mut prepared: Option<Prepared> = None;
    let mut is_recorded = |task: &Task| -> Result<bool> {
        let words = record::in_words(task);
        if !there.keys().any(|name| record::without_hash(name) == words) {
            return Ok(false);
        }
        let data = match &mut prepared {
            Some(data) if data.is_for(task) => data,
            slot => slot.insert(Prepared::open(catalogue, &task.dataset, &task.protocol)?),
        };
        let name = data.file_name(&data.resolve(models, task)?)?;
        Ok(there.get(&name).is_some_and(|path| Record::read(path).is_ok()))
    };
    Ok(suite.tasks.iter().filter(|task| !is_recorded(task).unwrap_or(false)).collect())
}

/// What became of a task, where nothing went wrong.
enum Done {
    Now,
    Before,
    Elsewhere,
}

/// The folder for records of tasks that there are newer ones of.
const SUPERSEDED: &str = "superseded";

/// Folders in a results folder that hold no records to go by.
const BESIDE_RECORDS: [&str; 3] = [SUPERSEDED, failure::FOLDER, UNFINISHED];

/// The folder for what long fits leave, to be taken up again.
const UNFINISHED: &str = "unfinished";

// The name of the record tells data, params and seed; bits are those of one build only.
fn checkpoint(folder: &Path, after: Duration) -> Checkpoint {
    let of = format!("{} {}", Software::this().version, env!("LONGCAST_BUILD"));
    Checkpoint { folder: folder.to_path_buf(), after, of }
}

fn remove_unfinished(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if folder.is_dir() => return Err(Error::io("remove", folder)(error)),
        _ => {}
    }
    // Only an empty one goes; others may be at work in it.
    let _ = folder.parent().map(fs::remove_dir);
    Ok(())
}

// Records of the same task with other inputs (params of a variant, another version of the data) go
// into a folder of their own: they are not lost, and no table shows two scores of one task.
fn set_aside(dir: &Path, there: &[String], name: &str) -> Result<()> {
    let same_task = record::without_hash(name);
    for other in there.iter().filter(|other| *other != name && record::without_hash(other) == same_task) {
        let (path, aside) = (dir.join(other), dir.join(SUPERSEDED));
        // Another process may have done so.
        if path.is_file() {
            fs::create_dir_all(&aside).map_err(Error::io("make the folder", &aside))?;
            fs::rename(&path, aside.join(other)).map_err(Error::io("set aside", &path))?;
        }
    }
    Ok(())
}

/// The folder that holds the records of a suite below the results folder `out`.
pub fn records_folder(out: &Path, suite: &str) -> PathBuf {
    out.join("records").join(suite)
}

fn interruptible(flow: ControlFlow<()>) -> Result<()> {
    match flow {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Interrupted),
    }
}
