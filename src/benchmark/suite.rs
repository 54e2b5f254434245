//! A suite: what is run, as a TOML file, multiplied out into tasks.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{Protocol, Record, file_safe};
use crate::{
    Error, Result,
    error::explain_toml,
    forecaster::{Intervals, Params},
};

/// What a suite file says.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SuiteFile {
    /// One paragraph for the top of the report.
    #[serde(default)]
    about: String,
    #[serde(default = "one_seed")]
    seeds: Vec<u64>,
    /// Of all runs that name no other: the name of a protocol, or its settings.
    #[serde(default, deserialize_with = "Protocol::named_or_table")]
    protocol: Protocol,
    /// Intervals to calibrate and score, in percent.
    #[serde(default)]
    levels: Vec<f64>,
    #[serde(default)]
    published: Beside,
    /// Models with other params than their defaults, under names of their own.
    #[serde(default)]
    variants: BTreeMap<String, Variant>,
    run: Vec<Run>,
}

fn one_seed() -> Vec<u64> {
    vec![2021]
}

/// A model under a name of its own.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Variant {
    model: String,
    /// The preset its params start from; without it the one with the name of the model, if there is
    /// one, and with "none" none.
    preset: Option<String>,
    #[serde(default)]
    params: Params,
    /// The folder with the weights it starts from, "{dataset}" in it standing for the name of the data
    /// set; relative to where the program runs.
    init: Option<String>,
    #[serde(default)]
    learning: Learning,
}

/// The papers' numbers that a report shows, by their model's name in `reports/published.csv`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Beside {
    /// Columns of the papers' tables shown beside ours.
    pub columns: Vec<String>,
    /// Our name → the published model it is held against, score by score.
    pub models: BTreeMap<String, String>,
}

/// Data sets × models × horizons at one lookback.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Run {
    datasets: Vec<String>,
    models: Vec<String>,
    lookback: usize,
    /// Where none are given, the one horizon that the data set is published with.
    #[serde(default)]
    horizons: Vec<usize>,
    /// Other seeds than those of the suite.
    seeds: Option<Vec<u64>>,
    /// Another protocol than that of the suite.
    #[serde(default, deserialize_with = "Protocol::perhaps")]
    protocol: Option<Protocol>,
}

/// A suite, read and multiplied out.
#[derive(Clone, Debug)]
pub struct Suite {
    /// The name of its file.
    pub name: String,
    pub about: String,
    pub published: Beside,
    /// In the order of the file, which is the order of tables.
    pub tasks: Vec<Task>,
    /// The file as it was read; a results folder holds a copy of it.
    pub text: String,
}

/// The copy of its suite that a results folder holds.
pub const SUITE_FILE: &str = "suite.toml";

/// One thing to run and score: all that a person chose.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    pub dataset: String,
    /// The name in tables; that of the model, or of a variant of it.
    pub name: String,
    /// The model's name in the registry.
    pub model: String,
    /// The preset that params are laid over; in a record the one that was used. Without it in a suite
    /// the one with the name of the model, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// Its params; in a record those of its preset and every default filled in.
    pub params: Params,
    pub lookback: usize,
    /// Steps ahead; in a suite 0 stands for the data set's own.
    pub horizon: usize,
    pub seed: u64,
    /// In a record the part of it that the data does not tell.
    pub protocol: Protocol,
    /// The weights it starts from, where it does not start anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<Init>,
    #[serde(default, skip_serializing_if = "Learning::is_full")]
    pub learning: Learning,
    /// Intervals that are calibrated on the validation windows and scored, in percent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub levels: Vec<f64>,
}

/// Pretrained weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Init {
    /// The folder that [`pretrain`](super::pretrain) made.
    pub folder: PathBuf,
    /// In a record: sha256 of what is in it.
    #[serde(default)]
    pub weights: String,
    /// In a record: the data sets it learnt from.
    #[serde(default)]
    pub datasets: Vec<String>,
}

impl Init {
    /// The folder, still to be looked into.
    pub fn of(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), weights: String::new(), datasets: vec![] }
    }
}

/// What a model learns from the training windows of the data set it is scored on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Learning {
    /// All of them.
    #[default]
    Full,
    /// The first so many percent of them.
    FewShot(f64),
    /// None: pretrained weights, which must not have been learnt from this data set.
    ZeroShot,
    /// None: pretrained weights as they are, wherever they were learnt.
    AsIs,
}

impl Learning {
    fn is_full(&self) -> bool {
        *self == Self::Full
    }
}

impl Task {
    /// A task with the default params of its model.
    pub fn named(dataset: &str, model: &str, lookback: usize, horizon: usize) -> Self {
        Self {
            dataset: dataset.to_string(),
            name: model.to_string(),
            model: model.to_string(),
            preset: None,
            params: Params::default(),
            lookback,
            horizon,
            seed: 2021,
            protocol: Protocol::default(),
            init: None,
            learning: Learning::Full,
            levels: vec![],
        }
    }
}

impl std::fmt::Display for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} × {} × {}→{}", self.dataset, self.name, self.lookback, self.horizon)
    }
}

impl Suite {
    /// Reads a suite file.
    ///
    /// # Errors
    /// If it cannot be read, or says what a suite cannot say.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
        let name = path.file_stem().map_or_else(|| "suite".into(), |stem| stem.to_string_lossy().into_owned());
        Self::parse(&name, &text).map_err(|error| Error::file(path, error))
    }

    /// The suite of a folder of records, which bears the folder's name; `None` where the folder holds none.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn of_folder(dir: &Path) -> Result<Option<Self>> {
        let file = dir.join(SUITE_FILE);
        if !file.is_file() {
            return Ok(None);
        }
        let mut suite = Self::read(&file)?;
        suite.bear_name_of(dir);
        Ok(Some(suite))
    }

    /// Takes the name of a folder.
    pub fn bear_name_of(&mut self, dir: &Path) {
        if let Some(name) = dir.canonicalize().ok().as_deref().and_then(Path::file_name) {
            self.name = name.to_string_lossy().into_owned();
        }
    }

    /// A suite from its text.
    ///
    /// # Errors
    /// If it says what a suite cannot say.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        let file: SuiteFile = toml::from_str(text).map_err(|error| Error::other(explain_toml(text, &error)))?;
        let mut tasks = Vec::new();
        for run in &file.run {
            if run.lookback == 0 || run.horizons.contains(&0) {
                return Err(Error::other("lookback and horizons must be at least 1"));
            }
            let horizons = if run.horizons.is_empty() { &[0][..] } else { &run.horizons };
            for dataset in &run.datasets {
                for horizon in horizons {
                    for name in &run.models {
                        for seed in run.seeds.as_ref().unwrap_or(&file.seeds) {
                            tasks.push(file.task(run, dataset, *horizon, name, *seed));
                        }
                    }
                }
            }
        }
        let tasks = distinct(tasks)?;
        if tasks.is_empty() {
            return Err(Error::other("there is nothing to run: give datasets, models and horizons in [[run]]"));
        }
        Ok(Self { name: name.to_string(), about: file.about, published: file.published, tasks, text: text.to_string() })
    }

    /// What can be told of a suite from its records alone.
    pub fn of_records(records: &[Record]) -> Self {
        let tasks = records.iter().map(|record| record.task.clone()).collect();
        Self { name: "records".into(), about: String::new(), published: Beside::default(), tasks, text: String::new() }
    }

    /// The place of a data set in this suite; after all others where it is not in it.
    pub fn dataset_order(&self, dataset: &str) -> usize {
        self.tasks.iter().position(|task| task.dataset == dataset).unwrap_or(usize::MAX)
    }

    /// The place of a model, by its name in tables.
    pub fn model_order(&self, name: &str) -> usize {
        self.tasks.iter().position(|task| task.name == name).unwrap_or(usize::MAX)
    }
}

/// The tasks, each once, where it comes first. Refuses what is found only after a fit otherwise, and two that a table
/// has one cell for.
fn distinct(tasks: Vec<Task>) -> Result<Vec<Task>> {
    let mut cells: BTreeMap<_, Task> = BTreeMap::new();
    let mut distinct = Vec::new();
    for task in tasks {
        Intervals::ordered(&task.levels)?;
        if let Learning::FewShot(percent) = task.learning
            && !(percent > 0.0 && percent <= 100.0)
        {
            return Err(Error::other(format!(
                "few-shot is a share of 0 to 100 percent, such as 5.0, and not {percent}"
            )));
        }
        let cell = (file_safe(&task.dataset), file_safe(&task.name), task.lookback, task.horizon, task.seed);
        match cells.get(&cell) {
            Some(same) if *same == task => {}
            Some(_) => {
                let remedy = "give one of them a name of its own under [variants]";
                return Err(Error::other(format!("{task} · seed {} is there twice, in two ways: {remedy}", task.seed)));
            }
            None => {
                cells.insert(cell, task.clone());
                distinct.push(task);
            }
        }
    }
    Ok(distinct)
}

impl SuiteFile {
    fn task(&self, run: &Run, dataset: &str, horizon: usize, name: &str, seed: u64) -> Task {
        let variant = self.variants.get(name);
        Task {
            dataset: dataset.to_string(),
            name: name.to_string(),
            model: variant.map_or(name, |variant| &variant.model).to_string(),
            preset: variant.and_then(|variant| variant.preset.clone()),
            params: variant.map(|variant| variant.params.clone()).unwrap_or_default(),
            lookback: run.lookback,
            horizon,
            seed,
            protocol: run.protocol.as_ref().unwrap_or(&self.protocol).clone(),
            init: variant
                .and_then(|variant| variant.init.as_ref())
                .map(|folder| Init::of(folder.replace("{dataset}", dataset))),
            learning: variant.map_or(Learning::Full, |variant| variant.learning),
            levels: self.levels.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::SplitRule;

    const TEXT: &str = r#"
        about = "An example."
        seeds = [1, 2]
        [protocol]
        drop_last = 32
        [variants.ridge-last]
        model = "ridge"
        params = { level = "last" }
        [published]
        columns = ["DLinear"]
        models = { ridge-last = "NLinear" }
        [[run]]
        datasets = ["ETTh1", "ETTh2"]
        models = ["repeat", "ridge-last"]
        lookback = 96
        horizons = [96, 192]
    "#;

    #[test]
    fn a_suite_is_multiplied_out() -> Result<()> {
        let suite = Suite::parse("example", TEXT)?;
        assert_eq!(suite.tasks.len(), 2 * 2 * 2 * 2);
        let last = suite.tasks.last().expect("there are sixteen");
        assert_eq!((last.to_string().as_str(), last.seed), ("ETTh2 × ridge-last × 96→192", 2));
        assert_eq!((last.model.as_str(), last.protocol.drop_last), ("ridge", 32));
        assert_eq!(suite.published.models["ridge-last"], "NLinear");
        assert_eq!((suite.dataset_order("ETTh2"), suite.model_order("ridge-last")), (8, 2));
        Ok(())
    }

    #[test]
    fn a_variant_may_start_from_pretrained_weights() -> Result<()> {
        let text = TEXT
            .replace("params = {", "init = \"models/without-{dataset}\"\nlearning = { few-shot = 5.0 }\nparams = {");
        let suite = Suite::parse("example", &text)?;
        let last = suite.tasks.last().expect("there are sixteen");
        assert_eq!(last.init, Some(Init::of("models/without-ETTh2")));
        assert_eq!(last.learning, Learning::FewShot(5.0));
        Ok(())
    }

    #[test]
    fn a_protocol_has_a_name_or_is_a_table_and_a_run_may_have_its_own() -> Result<()> {
        let named = TEXT.replace("[protocol]\n        drop_last = 32", "protocol = \"drop-last-32\"");
        // Of TOML, keys before tables.
        let named = named.replace("[[run]]", "[[run]]\n protocol = { split = { ratio = [0.6, 0.2, 0.2] } }");
        let suite = Suite::parse("example", &named)?;
        assert_eq!(suite.tasks[0].protocol.split, Some(SplitRule::Ratio([0.6, 0.2, 0.2])));
        assert_eq!(suite.tasks[0].protocol.drop_last, 0);
        let named = TEXT.replace("[protocol]\n        drop_last = 32", "protocol = \"drop-last-32\"");
        assert_eq!(Suite::parse("example", &named)?.tasks[0].protocol.drop_last, 32);
        let error = Suite::parse("example", &named.replace("last-32", "first")).unwrap_err();
        assert!(error.to_string().contains("did you mean 'drop-last-32'?"), "{error}");
        Ok(())
    }

    #[test]
    fn what_a_table_has_no_cell_for_is_refused() {
        let again = TEXT.to_string()
            + "\n[[run]]\ndatasets = [\"ETTh1\"]\nmodels = [\"repeat\"]\nlookback = 96\nhorizons = [96]";
        assert_eq!(Suite::parse("example", &again).unwrap().tasks, Suite::parse("example", TEXT).unwrap().tasks);
        let otherwise = again + "\nprotocol = \"strict\"";
        let error = Suite::parse("example", &otherwise).unwrap_err().to_string();
        assert!(error.contains("ETTh1 × repeat × 96→96 · seed 1 is there twice"), "{error}");
        for wrong in ["levels = [120.0]\n", "levels = [nan]\n"] {
            assert!(Suite::parse("example", &(wrong.to_string() + TEXT)).unwrap_err().to_string().contains("a level"));
        }
        let wrong = TEXT.replace("params = {", "learning = { few-shot = 500.0 }\nparams = {");
        assert!(Suite::parse("example", &wrong).unwrap_err().to_string().contains("few-shot"));
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let error = Suite::parse("example", &TEXT.replace("horizons", "horizon")).unwrap_err();
        assert!(error.to_string().contains("unknown key 'horizon'; did you mean 'horizons'?"), "{error}");
    }
}
