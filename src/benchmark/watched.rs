//! What one process leaves for the one that watches over it, should the system end it while it is at a task.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{UNFINISHED, record::write_whole};
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
pub(super) struct AtWork(PathBuf);

impl Watched {
    /// Leaves word in `folder` that there is work on a task.
    ///
    /// # Errors
    /// If the process before this one ended while at the same task, or the folder cannot be written.
    pub(super) fn at_work(&self, folder: &Path) -> Result<AtWork> {
        let file = folder.join(FILE);
        if let Some(ended) = &self.ended
            && fs::read_to_string(&file).is_ok_and(|by| by == self.by)
        {
            return Err(Error::other(ended));
        }
        fs::create_dir_all(folder).map_err(Error::io("make the folder", folder))?;
        write_whole(&file, self.by.as_bytes())?;
        Ok(AtWork(file))
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
        let _ = fs::remove_file(&self.0);
        self.0.ancestors().skip(1).take(2).all(|folder| fs::remove_dir(folder).is_ok());
    }
}
