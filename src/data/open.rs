//! A data set by its name: found, read, and compared with what the manifest says of it.

use std::path::Path;

use ndarray::Array2;
use sha2::{Digest, Sha256};

use super::{
    Builtin, Calendar, Collection, DataFile, Dataset, Folders, Kind, Series, SeriesFile, SplitRule, Step, fetch,
    loader::{self, Duplicates, ReadOptions, TimeColumn},
};
use crate::{Error, Result};

/// A data set that has been read.
#[derive(Clone, Debug)]
pub struct Opened {
    /// One series of a file, or all those of a collection.
    pub series: Vec<Series>,
    pub parts: Parts,
    /// Of the expanded content; for a collection those of both files, joined by `+`.
    pub sha256: String,
    /// Rows in a season.
    pub season: usize,
    pub calendar: Calendar,
}

/// Which rows are to learn from and which to be scored on.
#[derive(Clone, Debug, PartialEq)]
pub enum Parts {
    /// All series are divided by this rule.
    Rule(SplitRule),
    /// So many rows of each series, in their order, are to learn from; the rest is test.
    TrainRows(Vec<usize>),
}

impl Opened {
    /// The same with other calendar features and divided by another rule, where they are given.
    ///
    /// # Errors
    /// If it is a set of many series, each of which has test values of its own, and a rule is given.
    pub fn by(self, calendar: Option<Calendar>, rule: Option<&SplitRule>) -> Result<Self> {
        let parts = match (self.parts, rule) {
            (Parts::Rule(_), Some(rule)) => Parts::Rule(rule.clone()),
            (Parts::TrainRows(_), Some(_)) => {
                return Err(Error::other(
                    "a set of many series has test values of its own and cannot be split otherwise",
                ));
            }
            (parts, None) => parts,
        };
        let calendar = calendar.unwrap_or(self.calendar);
        let series = self.series.into_iter().map(|series| series.with_calendar(calendar)).collect();
        Ok(Self { series, parts, calendar, ..self })
    }
}

/// Reads `dataset` from the first folder that has it.
///
/// # Errors
/// If a file is missing or cannot be read, its content is not what the manifest says, or the files
/// of a collection do not go together.
pub fn open(dataset: &Dataset, folders: &Folders) -> Result<Opened> {
    match &dataset.kind {
        Kind::Series(file) => series(dataset, file, folders),
        Kind::Collection(collection) => self::collection(dataset, collection, folders),
        Kind::Builtin(builtin) => self::builtin(dataset, *builtin),
    }
}

/// Reads a file that no manifest knows, to be split by `rule`.
///
/// # Errors
/// As for [`loader::read`].
pub fn open_file(path: &Path, options: &ReadOptions, rule: SplitRule) -> Result<Opened> {
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let reading = loader::read(path, &name, options)?;
    let step = Step::detect(reading.series.timestamps());
    let (season, calendar) = (step.map_or(1, Step::season), Calendar::of(step));
    let series = vec![reading.series.with_calendar(calendar)];
    Ok(Opened { series, parts: Parts::Rule(rule), sha256: reading.sha256, season, calendar })
}

fn series(dataset: &Dataset, file: &SeriesFile, folders: &Folders) -> Result<Opened> {
    let path = folders.find(dataset, &file.file)?;
    let options = ReadOptions {
        time_column: if file.timestamps { TimeColumn::Auto } else { TimeColumn::Absent },
        duplicates: if file.keep_duplicates { Duplicates::Keep } else { Duplicates::Error },
        header: file.header,
        ..ReadOptions::default()
    };
    let reading = loader::read(&path, &dataset.name, &options).map_err(|error| {
        // A file that is not the one expected is told by its checksum, whatever else it lacks.
        let sha256 = fetch::sha256(&path);
        sha256.and_then(|found| check(&path, &file.file, &found)).err().unwrap_or(error)
    })?;
    check(&path, &file.file, &reading.sha256)?;
    let found = (reading.series.len(), reading.series.variates().len());
    let stated = (dataset.rows.unwrap_or(found.0), dataset.variates.unwrap_or(found.1));
    if found != stated {
        return Err(Error::file(
            &path,
            format!(
                "{} rows of {} variates, but {} has {} rows of {}: it is another file",
                found.0, found.1, dataset.name, stated.0, stated.1
            ),
        ));
    }
    let step = Step::detect(reading.series.timestamps());
    let season = dataset.stated_season().unwrap_or_else(|| step.map_or(1, Step::season));
    let calendar = dataset.calendar.unwrap_or_else(|| Calendar::of(dataset.step.or(step)));
    Ok(Opened {
        series: vec![reading.series.with_calendar(calendar)],
        parts: Parts::Rule(dataset.split.clone().unwrap_or_default()),
        sha256: reading.sha256,
        season,
        calendar,
    })
}

fn collection(dataset: &Dataset, collection: &Collection, folders: &Folders) -> Result<Opened> {
    let (train_path, test_path) = (folders.find(dataset, &collection.train)?, folders.find(dataset, &collection.test)?);
    let (train, train_sha256) = loader::read_collection(&train_path)?;
    let (test, test_sha256) = loader::read_collection(&test_path)?;
    check(&train_path, &collection.train, &train_sha256)?;
    check(&test_path, &collection.test, &test_sha256)?;
    let stated = collection.series.unwrap_or(train.len());
    if train.len() != stated || test.len() != stated {
        return Err(Error::other(format!(
            "{}: {} has {} series and {} has {}, but there are {stated} in it",
            dataset.name,
            train_path.display(),
            train.len(),
            test_path.display(),
            test.len()
        )));
    }
    let train_rows = train.iter().map(|(_, values)| values.len()).collect();
    let series = train
        .into_iter()
        .zip(test)
        .map(|((id, mut values), (test_id, test))| {
            if id != test_id {
                let message = format!("series '{test_id}' stands where the training file has '{id}'");
                return Err(Error::file(&test_path, message));
            }
            if test.len() != collection.horizon {
                let (count, horizon) = (test.len(), collection.horizon);
                return Err(Error::file(&test_path, format!("series '{id}' has {count} values, not {horizon}")));
            }
            values.extend(test);
            let values = Array2::from_shape_fn((values.len(), 1), |(row, _)| values[row]);
            Series::new(id, vec![], vec!["value".to_string()], values)
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(Opened {
        series,
        parts: Parts::TrainRows(train_rows),
        sha256: format!("{train_sha256}+{test_sha256}"),
        season: dataset.season(),
        calendar: Calendar::None,
    })
}

fn builtin(dataset: &Dataset, builtin: Builtin) -> Result<Opened> {
    let calendar = dataset.calendar.unwrap_or_else(|| Calendar::of(dataset.step));
    let series = builtin.series()?.with_calendar(calendar);
    let mut hasher = Sha256::new();
    for value in series.values() {
        hasher.update(value.to_le_bytes());
    }
    Ok(Opened {
        series: vec![series],
        parts: Parts::Rule(dataset.split.clone().unwrap_or_default()),
        sha256: fetch::hex(hasher),
        season: dataset.season(),
        calendar,
    })
}

fn check(path: &Path, file: &DataFile, found: &str) -> Result<()> {
    match &file.sha256 {
        Some(expected) if expected != found => {
            Err(Error::Checksum { file: path.to_path_buf(), expected: expected.clone(), found: found.to_string() })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::data::Manifest;

    const ZEROS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

    /// A data folder with these files, and the data set `Mine` of the manifest `entry`.
    fn mine(entry: &str, files: &[(&str, &str)]) -> (tempfile::TempDir, Folders, Dataset) {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let manifest = Manifest::parse(&format!("[Mine]\n{entry}"), Path::new("manifest.toml")).unwrap();
        let folders = Folders(vec![folder.path().to_path_buf()]);
        (folder, folders, manifest.get("Mine").unwrap().clone())
    }

    const CSV: (&str, &str) = ("mine.csv", "date,a,b\n2020-01-01,1,2\n2020-01-02,3,4\n");

    #[test]
    fn another_checksum_is_an_error() {
        let (_folder, folders, dataset) = mine(&format!("file = \"mine.csv\"\nsha256 = \"{ZEROS}\""), &[CSV]);
        assert!(matches!(open(&dataset, &folders), Err(Error::Checksum { .. })));
    }

    #[test]
    fn another_shape_is_an_error_that_names_both() {
        let (folder, folders, dataset) = mine("file = \"mine.csv\"\nrows = 3\nvariates = 2", &[CSV]);
        let message = open(&dataset, &folders).unwrap_err().to_string();
        let path = folder.path().join("mine.csv");
        let expected = "2 rows of 2 variates, but Mine has 3 rows of 2: it is another file";
        assert_eq!(message, format!("{}: {expected}", path.display()));
    }

    const COLLECTION: &str =
        "train = { file = \"train.csv\" }\ntest = { file = \"test.csv\" }\nhorizon = 2\nseason = 1";
    const TRAIN: (&str, &str) = ("train.csv", "V1,V2,V3,V4\nx,1,2,3\ny,4,5,\n");

    #[test]
    fn test_values_follow_the_training_values_of_their_series() -> Result<()> {
        let (_folder, folders, dataset) = mine(COLLECTION, &[TRAIN, ("test.csv", "V1,V2,V3\nx,10,11\ny,12,13\n")]);
        let opened = open(&dataset, &folders)?;
        assert_eq!(opened.parts, Parts::TrainRows(vec![3, 2]));
        assert_eq!((opened.series[1].name(), opened.series[1].variate(0)), ("y", &[4.0, 5.0, 12.0, 13.0][..]));
        Ok(())
    }

    #[test]
    fn series_in_another_order_are_refused() {
        let (_folder, folders, dataset) = mine(COLLECTION, &[TRAIN, ("test.csv", "V1,V2,V3\ny,1,2\nx,3,4\n")]);
        let message = open(&dataset, &folders).unwrap_err().to_string();
        assert!(message.ends_with("series 'y' stands where the training file has 'x'"), "{message}");
    }

    #[test]
    fn a_test_of_another_length_than_the_horizon_is_refused() {
        let (_folder, folders, dataset) = mine(COLLECTION, &[TRAIN, ("test.csv", "V1,V2\nx,1\ny,2\n")]);
        let message = open(&dataset, &folders).unwrap_err().to_string();
        assert!(message.ends_with("series 'x' has 1 values, not 2"), "{message}");
    }

    #[test]
    fn what_is_built_in_is_what_the_manifest_says() -> Result<()> {
        let (manifest, nowhere) = (Manifest::builtin()?, Folders::default());
        for name in ["AirPassengers", "Synthetic"] {
            let dataset = manifest.get(name)?;
            let opened = open(dataset, &nowhere)?;
            let series = &opened.series[0];
            assert_eq!((series.name(), Some(series.len())), (name, dataset.rows));
            assert_eq!(Some(series.variates().len()), dataset.variates);
            assert_eq!(opened.sha256.len(), 64);
            assert_eq!(opened.calendar, if name == "Synthetic" { Calendar::Hourly } else { Calendar::Monthly });
        }
        Ok(())
    }

    /// Where there are data on this machine, they are what the manifest says.
    #[test]
    fn every_set_that_is_here_opens() -> Result<()> {
        let folders = Folders::new(None);
        for dataset in Manifest::builtin()?.iter() {
            if dataset.files().iter().all(|file| folders.locate(file).is_some()) {
                open(dataset, &folders)?;
            }
        }
        Ok(())
    }
}
