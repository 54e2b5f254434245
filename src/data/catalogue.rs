//! Data sets by name, ready to use.

use std::path::Path;

use super::{Dataset, Folders, Manifest, Opened, open::open};
use crate::{Error, Result};

/// The data sets there are and the folders their files lie in.
#[derive(Clone, Debug)]
pub struct Catalogue {
    pub manifest: Manifest,
    pub folders: Folders,
}

impl Catalogue {
    /// The data sets known to longcast and to a `manifest.toml` in `data`, in the folder that
    /// `LONGCAST_DATA` names or in `datasets/`, whose files are looked for in this order too.
    ///
    /// # Errors
    /// If a manifest cannot be used.
    pub fn new(data: Option<&Path>) -> Result<Self> {
        let folders = Folders::new(data);
        Ok(Self { manifest: Manifest::of(&folders)?, folders })
    }

    /// The entry called `name`.
    ///
    /// # Errors
    /// If there is none; the message suggests a near name.
    pub fn dataset(&self, name: &str) -> Result<&Dataset> {
        self.manifest.get(name)
    }

    /// The entry called exactly `name`: what is recorded, compared and looked up by name has one.
    ///
    /// # Errors
    /// If there is none.
    pub fn exactly(&self, name: &str) -> Result<&Dataset> {
        let found = self.dataset(name)?;
        match found.name == name {
            true => Ok(found),
            false => Err(Error::unknown("data set", name, [found.name.as_str()])),
        }
    }

    /// Reads the data set called `name`.
    ///
    /// # Errors
    /// If it is not known, its file is not here, cannot be read, or is not what the manifest says:
    /// by its checksum, rows and variates.
    pub fn open(&self, name: &str) -> Result<Opened> {
        open(self.dataset(name)?, &self.folders)
    }
}
