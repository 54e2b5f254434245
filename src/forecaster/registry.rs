//! The forecasters there are: name → how to build one.

use std::collections::BTreeMap;

use serde::{Serialize, de::DeserializeOwned};

use super::{BuildContext, Forecaster, Params, Preset};
use crate::{Error, Result};

type Build = Box<dyn Fn(&Params, &BuildContext) -> Result<Box<dyn Forecaster>> + Send + Sync>;
type Resolve = Box<dyn Fn(&Params) -> Result<Params> + Send + Sync>;

struct Entry {
    about: &'static str,
    build: Build,
    resolve: Resolve,
}

/// Forecasters by name.
///
/// [`models::builtin`](crate::models::builtin) gives those of this crate; one's own are added with
/// [`register`](Self::register) and are then known to the whole CLI and to every report.
#[derive(Default)]
pub struct Registry {
    entries: BTreeMap<&'static str, Entry>,
    presets: BTreeMap<String, Preset>,
}

impl Registry {
    /// Adds the forecaster that `new` builds from its params; `about` says in one line what it is.
    ///
    /// A name that is there already is replaced.
    pub fn register<P, F>(&mut self, name: &'static str, about: &'static str, new: fn(P, &BuildContext) -> Result<F>)
    where
        P: Serialize + DeserializeOwned + 'static,
        F: Forecaster + 'static,
    {
        let build = move |params: &Params, context: &BuildContext| -> Result<Box<dyn Forecaster>> {
            Ok(Box::new(new(params.read(name)?, context)?))
        };
        let resolve = move |params: &Params| Params::from_type(&params.read::<P>(name)?);
        self.entries.insert(name, Entry { about, build: Box::new(build), resolve: Box::new(resolve) });
    }

    /// Adds a preset; one of the same name is replaced.
    ///
    /// # Errors
    /// If its model is not known.
    pub fn add_preset(&mut self, preset: Preset) -> Result<()> {
        self.entry(&preset.model)?;
        self.presets.insert(preset.name.clone(), preset);
        Ok(())
    }

    /// All presets, by name.
    pub fn presets(&self) -> impl Iterator<Item = &Preset> + '_ {
        self.presets.values()
    }

    /// The params that `model` starts from for a data set and horizon: those of the preset it is run with, if there is one.
    ///
    /// # Errors
    /// As for [`preset`](Self::preset).
    pub fn preset_params(&self, model: &str, wanted: Option<&str>, dataset: &str, horizon: usize) -> Result<Params> {
        Ok(self.preset(model, wanted)?.map(|preset| preset.params(dataset, horizon)).unwrap_or_default())
    }

    /// The preset that `model` is run with: the one named `wanted`, which may be "none"; where nothing
    /// is wanted, the one that has the name of the model.
    ///
    /// # Errors
    /// If there is none of that name for this model.
    pub fn preset(&self, model: &str, wanted: Option<&str>) -> Result<Option<&Preset>> {
        match wanted {
            Some("none") => Ok(None),
            None => Ok(self.presets.get(model)),
            Some(name) => {
                let of_model = || self.presets().filter(|preset| preset.model == model);
                match of_model().find(|preset| preset.name == name) {
                    Some(preset) => Ok(Some(preset)),
                    None => {
                        let known = of_model().map(|preset| preset.name.as_str()).chain(["none"]);
                        Err(Error::unknown("preset", name, known))
                    }
                }
            }
        }
    }

    /// Builds the forecaster `name`.
    ///
    /// # Errors
    /// If there is no such name, a key of `params` is unknown, or a value cannot be used.
    pub fn build(&self, name: &str, params: &Params, context: &BuildContext) -> Result<Box<dyn Forecaster>> {
        (self.entry(name)?.build)(params, context)
    }

    /// `params` with every default filled in, as a record keeps them.
    ///
    /// # Errors
    /// As for [`build`](Self::build), but for values that only fail with a certain data set.
    pub fn resolve(&self, name: &str, params: &Params) -> Result<Params> {
        (self.entry(name)?.resolve)(params)
    }

    /// What the forecaster `name` is, in one line.
    ///
    /// # Errors
    /// If there is no such name.
    pub fn about(&self, name: &str) -> Result<&'static str> {
        Ok(self.entry(name)?.about)
    }

    /// All names, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.entries.keys().copied()
    }

    fn entry(&self, name: &str) -> Result<&Entry> {
        self.entries.get(name).ok_or_else(|| Error::unknown("model", name, self.names()))
    }
}
