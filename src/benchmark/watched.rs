//! What one process leaves for the one that watches over it, should the system end it while it is at a task.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::UNFINISHED;
use crate::{Error, Result};

/// The file, in the folder of an unfinished task, that names who watches over the process at it.
const FILE: &str = "at-work";

/// Another process watches over this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// By whom: what no other process has.
    pub by: String,
    /// How the process before this one ended, in words; the task that it was at then has failed.
    pub ended: Option<String>,
}

/// Goes with every end but the one that the system makes.
pub(super) struct AtWork {
    file: PathBuf,
    /// Whoever has the lock is at work.
    _lock: File,
}

impl Watched {
    /// Leaves word in `folder` that there is work on a task; `None` where another process is at it.
    ///
    /// # Errors
    /// If the process before this one ended while at the same task, or the folder cannot be written.
    pub(super) fn at_work(&self, folder: &Path) -> Result<Option<AtWork>> {
        let file = folder.join(FILE);
        if let Some(ended) = &self.ended
            && fs::read_to_string(&file).is_ok_and(|by| by == self.by)
        {
            return Err(Error::other(ended));
        }
        loop {
            fs::create_dir_all(folder).map_err(Error::io("make the folder", folder))?;
            let lock = match OpenOptions::new().create(true).write(true).truncate(false).open(&file) {
                // Removed as empty by the process that has just ended there.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened.map_err(Error::io("write", &file))?,
            };
            // Where there are no locks there is nobody to ask.
            if matches!(lock.try_lock(), Err(TryLockError::WouldBlock)) {
                return Ok(None);
            }
            // One that was let go of goes with its file.
            if file.exists() {
                let write = lock.set_len(0).and_then(|()| (&lock).write_all(self.by.as_bytes()));
                write.map_err(Error::io("write", &file))?;
                return Ok(Some(AtWork { file, _lock: lock }));
            }
        }
    }

    /// Whether a process that `by` watches over was at a task in the results folder `dir` when it ended.
    pub fn was_at_work(dir: &Path, by: &str) -> bool {
        let mut tasks = fs::read_dir(dir.join(UNFINISHED)).into_iter().flatten().flatten();
        tasks.any(|task| fs::read_to_string(task.path().join(FILE)).is_ok_and(|other| other == by))
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        // Nothing depends on it, and only empty folders go.
        let _ = fs::remove_file(&self.file);
        self.file.ancestors().skip(1).take(2).all(|folder| fs::remove_dir(folder).is_ok());
    }
}
