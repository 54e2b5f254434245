//! The data sets known by name: `datasets/manifest.toml` as types, and the folders files lie in.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{Builtin, Calendar, Step};
use crate::{Error, Result};

const BUILTIN: &str = include_str!("../../datasets/manifest.toml");

/// All that can be asked for by name.
#[derive(Clone, Debug)]
pub struct Manifest {
    // By the name in lower case, under which it is looked up.
    datasets: BTreeMap<String, Dataset>,
}

/// A data set: what it is, where its files are, and how it is customarily scored.
#[derive(Clone, Debug)]
pub struct Dataset {
    pub name: String,
    pub kind: Kind,
    /// The step the manifest states; a series file without one is asked itself.
    pub step: Option<Step>,
    /// The calendar features its rows have; without it those of its step.
    pub calendar: Option<Calendar>,
    /// How a series is divided. The series of a collection are not: each has its own test rows.
    pub split: Option<SplitRule>,
    pub rows: Option<usize>,
    pub variates: Option<usize>,
    pub licence: String,
    pub source: String,
    /// What a user may trip over.
    pub odd: Option<String>,
    /// How to come by the files where no address has them as they are needed.
    pub how: Option<String>,
    season: Option<usize>,
}

/// Where the values are.
#[derive(Clone, Debug)]
pub enum Kind {
    /// One series in one file.
    Series(SeriesFile),
    /// Many short series, in a file of training and one of test values.
    Collection(Collection),
    /// Part of the program.
    Builtin(Builtin),
}

/// A file under a data folder.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataFile {
    /// Its path under the folder; the same name with `.gz` at its end will do.
    pub file: String,
    /// Of the expanded content.
    pub sha256: Option<String>,
    /// Where these very bytes can be fetched.
    pub url: Option<String>,
}

/// One series, and what is special about how it is written.
#[derive(Clone, Debug)]
pub struct SeriesFile {
    pub file: DataFile,
    /// Whether the first row names the columns.
    pub header: bool,
    /// Whether there is a column of timestamps.
    pub timestamps: bool,
    /// Whether published scores were made with the rows of equal timestamps left in.
    pub keep_duplicates: bool,
}

/// The files of a collection, one series a row, in the same order in both.
#[derive(Clone, Debug)]
pub struct Collection {
    pub train: DataFile,
    pub test: DataFile,
    /// Test values of each series.
    pub horizon: usize,
    /// How many series there are.
    pub series: Option<usize>,
}

/// How the rows of a series are divided into train, valid and test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SplitRule {
    /// So many rows each, from the first row on; rows after them are not used.
    Rows([usize; 3]),
    /// Shares of all rows: train and test are the product in f64, truncated, and valid is the rest
    /// (the rule of the reference loaders: 730 rows at 0.7 give 510, not 511).
    Ratio([f64; 3]),
    /// Two cut points as shares of all rows, the products truncated. Lookbacks do not reach over
    /// them (the rule of the PEMS loaders).
    Cuts([f64; 2]),
}

impl Default for SplitRule {
    /// 70/10/20, which is customary where nothing else is.
    fn default() -> Self {
        Self::Ratio([0.7, 0.1, 0.2])
    }
}

/// An entry as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    file: Option<String>,
    sha256: Option<String>,
    url: Option<String>,
    header: Option<bool>,
    timestamps: Option<bool>,
    keep_duplicates: Option<bool>,
    train: Option<DataFile>,
    test: Option<DataFile>,
    horizon: Option<usize>,
    series: Option<usize>,
    builtin: Option<Builtin>,
    step: Option<Step>,
    season: Option<usize>,
    #[serde(default)]
    calendar: Option<Calendar>,
    split: Option<SplitRule>,
    rows: Option<usize>,
    variates: Option<usize>,
    licence: Option<String>,
    source: Option<String>,
    odd: Option<String>,
    how: Option<String>,
}

impl Manifest {
    /// The data sets longcast itself knows.
    ///
    /// # Errors
    /// None in a build that passes its tests: the text is compiled in.
    pub fn builtin() -> Result<Self> {
        Self::parse(BUILTIN, Path::new("datasets/manifest.toml"))
    }

    /// A manifest from its text; `origin` is the file that messages name.
    ///
    /// # Errors
    /// If the text is not TOML, has an unknown key, or an entry lacks what its kind needs.
    pub fn parse(text: &str, origin: &Path) -> Result<Self> {
        let entries: BTreeMap<String, toml::Value> =
            toml::from_str(text).map_err(|error| Error::file(origin, error.to_string().trim_end()))?;
        let datasets = entries
            .into_iter()
            .map(|(name, entry)| {
                let dataset = Dataset::parse(&name, entry)
                    .map_err(|message| Error::file(origin, format!("[{name}]: {}", message.trim_end())))?;
                Ok((name.to_lowercase(), dataset))
            })
            .collect::<Result<_>>()?;
        Ok(Self { datasets })
    }

    /// The built-in data sets, with the `manifest.toml` of each folder that has one laid over
    /// them; the first folder wins.
    ///
    /// # Errors
    /// If one of these files cannot be read or used.
    pub fn of(folders: &Folders) -> Result<Self> {
        let mut manifest = Self::builtin()?;
        for folder in folders.0.iter().rev() {
            let path = folder.join("manifest.toml");
            if path.is_file() {
                let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
                manifest.datasets.extend(Self::parse(&text, &path)?.datasets);
            }
        }
        Ok(manifest)
    }

    /// The data set called `name`, in upper or lower case.
    ///
    /// # Errors
    /// If there is none; the message suggests a near name.
    pub fn get(&self, name: &str) -> Result<&Dataset> {
        self.datasets.get(&name.to_lowercase()).ok_or_else(|| Error::unknown("data set", name, self.names()))
    }

    /// All names, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.iter().map(|dataset| dataset.name.as_str())
    }

    /// All data sets, in alphabetical order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Dataset> {
        self.datasets.values()
    }
}

impl Dataset {
    /// The horizon of a set of many series, which each have so many test values.
    pub fn horizon(&self) -> Option<usize> {
        match &self.kind {
            Kind::Collection(collection) => Some(collection.horizon),
            _ => None,
        }
    }

    fn parse(name: &str, entry: toml::Value) -> Result<Self, String> {
        let entry: Entry = entry.try_into().map_err(|error: toml::de::Error| error.to_string())?;
        let mut season = entry.season;
        let mut split = Some(entry.split.unwrap_or_default());
        let kind = match (entry.file, entry.train, entry.test, entry.builtin) {
            (Some(file), None, None, None) => Kind::Series(SeriesFile {
                file: DataFile { file, sha256: entry.sha256, url: entry.url },
                header: entry.header.unwrap_or(true),
                timestamps: entry.timestamps.unwrap_or(true),
                keep_duplicates: entry.keep_duplicates.unwrap_or(false),
            }),
            (None, Some(train), Some(test), None) => {
                split = None;
                season = Some(season.or(entry.step.map(Step::season)).ok_or("a collection needs a season")?);
                let horizon = entry.horizon.ok_or("a collection needs its horizon")?;
                Kind::Collection(Collection { train, test, horizon, series: entry.series })
            }
            (None, None, None, Some(builtin)) => Kind::Builtin(builtin),
            _ => return Err("give either file, or train and test".to_string()),
        };
        if season == Some(0) || entry.rows == Some(0) || entry.variates == Some(0) {
            return Err("season, rows and variates are 1 or more".to_string());
        }
        Ok(Self {
            name: name.to_string(),
            kind,
            step: entry.step,
            calendar: entry.calendar,
            split,
            rows: entry.rows,
            variates: entry.variates,
            licence: entry.licence.unwrap_or_else(|| "not stated".to_string()),
            source: entry.source.unwrap_or_else(|| "not stated".to_string()),
            odd: entry.odd,
            how: entry.how,
            season,
        })
    }

    /// Rows in a season: the one stated, else that of the step; 1 where neither is known.
    pub fn season(&self) -> usize {
        self.stated_season().unwrap_or(1)
    }

    /// The season stated, or that of the step stated.
    pub(super) fn stated_season(&self) -> Option<usize> {
        self.season.or(self.step.map(Step::season))
    }

    /// The files it is made of; none for what is built in.
    pub fn files(&self) -> Vec<&DataFile> {
        match &self.kind {
            Kind::Series(series) => vec![&series.file],
            Kind::Collection(collection) => vec![&collection.train, &collection.test],
            Kind::Builtin(_) => vec![],
        }
    }

    /// Whether every file has an address to fetch it from.
    pub fn can_be_fetched(&self) -> bool {
        let files = self.files();
        !files.is_empty() && files.iter().all(|file| file.url.is_some())
    }
}

/// The folders data files are looked for in, first come first served.
#[derive(Clone, Debug, Default)]
pub struct Folders(pub Vec<PathBuf>);

impl Folders {
    /// `data` if given, then what the environment variable `LONGCAST_DATA` names, then `datasets/`.
    pub fn new(data: Option<&Path>) -> Self {
        let from_environment = env::var_os("LONGCAST_DATA").filter(|value| !value.is_empty()).map(PathBuf::from);
        let folders = data.map(Path::to_path_buf).into_iter().chain(from_environment);
        Self(folders.chain([PathBuf::from("datasets")]).collect())
    }

    /// Where the file lies, as it is or with `.gz` at its end, if it does.
    pub fn locate(&self, file: &DataFile) -> Option<PathBuf> {
        let packed = format!("{}.gz", file.file);
        let mut candidates = self.0.iter().flat_map(|folder| [folder.join(&file.file), folder.join(&packed)]);
        candidates.find(|path| path.is_file())
    }

    /// Where a file of `dataset` lies.
    ///
    /// # Errors
    /// If no folder has it; the message names the folders and says what to do.
    pub fn find(&self, dataset: &Dataset, file: &DataFile) -> Result<PathBuf> {
        self.locate(file).ok_or_else(|| {
            let folders: Vec<String> = self.0.iter().map(|folder| folder.display().to_string()).collect();
            let (folders, name) = (folders.join(", "), &dataset.name);
            let remedy = match dataset.can_be_fetched() {
                true => format!("run 'longcast data fetch {name}'"),
                false => format!("'longcast data fetch {name}' says where to get it"),
            };
            Error::file(
                Path::new(&file.file),
                format!("not found in {folders}: {remedy}, or give the folder that has it with --data"),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Manifest> {
        Manifest::parse(text, Path::new("manifest.toml"))
    }

    #[test]
    fn the_built_in_manifest_says_all_there_is_to_say() -> Result<()> {
        let manifest = Manifest::builtin()?;
        assert_eq!(manifest.iter().count(), 17 + 12 + 7 + 2);
        for dataset in manifest.iter() {
            let name = &dataset.name;
            assert!(dataset.licence != "not stated" && dataset.source != "not stated", "{name}");
            assert!(dataset.step.is_some() || name == "M3-Other", "{name}");
            for file in dataset.files() {
                assert!(file.url.is_some() || dataset.how.is_some(), "{name}: no way to get {}", file.file);
                assert!(file.sha256.as_ref().is_none_or(|sum| sum.len() == 64), "{name}");
            }
            match &dataset.kind {
                Kind::Collection(collection) => assert!(collection.series.is_some(), "{name}"),
                _ => assert!(dataset.rows.is_some() && dataset.variates.is_some(), "{name}"),
            }
        }
        Ok(())
    }

    #[test]
    fn a_name_is_found_in_any_case_or_a_near_one_suggested() -> Result<()> {
        let manifest = Manifest::builtin()?;
        assert_eq!(manifest.get("etth1")?.name, "ETTh1");
        let error = manifest.get("wether").unwrap_err();
        assert_eq!(error.to_string(), "no data set named 'wether'; did you mean 'Weather'?");
        Ok(())
    }

    #[test]
    fn a_file_is_all_an_entry_needs() -> Result<()> {
        let manifest = parse("[Mine]\nfile = \"mine.csv\"\nstep = \"15min\"")?;
        let mine = manifest.get("mine")?;
        assert_eq!((mine.season(), mine.split.clone()), (96, Some(SplitRule::Ratio([0.7, 0.1, 0.2]))));
        Ok(())
    }

    #[test]
    fn a_mistyped_key_is_named_with_its_entry_and_file() {
        let message = parse("[Mine]\nfile = \"mine.csv\"\nsteps = \"1h\"").unwrap_err().to_string();
        assert!(message.starts_with("manifest.toml: [Mine]: unknown field `steps`"), "{message}");
    }

    #[test]
    fn an_entry_that_is_neither_one_nor_the_other_is_refused() {
        let message = parse("[Mine]\ntrain = { file = \"a.csv\" }").unwrap_err().to_string();
        assert_eq!(message, "manifest.toml: [Mine]: give either file, or train and test");
    }

    #[test]
    fn trading_days_have_a_week_of_five() -> Result<()> {
        let manifest = Manifest::builtin()?;
        let seasons = [("Exchange", 5), ("NASDAQ", 5), ("Power", 7), ("ETTm1", 96), ("M4-Weekly", 1), ("M3-Other", 1)];
        for (name, season) in seasons {
            assert_eq!(manifest.get(name)?.season(), season, "{name}");
        }
        Ok(())
    }

    #[test]
    fn the_manifest_of_the_first_folder_wins() -> Result<()> {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(first.path().join("manifest.toml"), "[etth1]\nfile = \"first.csv\"").unwrap();
        fs::write(second.path().join("manifest.toml"), "[ETTh1]\nfile = \"second.csv\"\n[Mine]\nfile = \"x.csv\"")
            .unwrap();
        let manifest = Manifest::of(&Folders(vec![first.path().into(), second.path().into()]))?;
        assert_eq!(manifest.get("ETTh1")?.files()[0].file, "first.csv");
        assert_eq!(manifest.get("mine")?.files()[0].file, "x.csv");
        Ok(())
    }

    #[test]
    fn a_packed_file_will_do_and_a_missing_one_is_explained() -> Result<()> {
        let folder = tempfile::tempdir().unwrap();
        let folders = Folders(vec![folder.path().into(), PathBuf::from("elsewhere")]);
        let manifest = parse("[Mine]\nfile = \"a/mine.csv\"")?;
        let mine = manifest.get("Mine")?;

        let message = folders.find(mine, mine.files()[0]).unwrap_err().to_string();
        let expected = format!(
            "a/mine.csv: not found in {}, elsewhere: 'longcast data fetch Mine' says where to get it, \
             or give the folder that has it with --data",
            folder.path().display()
        );
        assert_eq!(message, expected);

        fs::create_dir(folder.path().join("a")).unwrap();
        fs::write(folder.path().join("a/mine.csv.gz"), "").unwrap();
        assert_eq!(folders.find(mine, mine.files()[0])?, folder.path().join("a/mine.csv.gz"));
        Ok(())
    }
}
