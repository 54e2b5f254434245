//! `longcast data`: which data sets there are, all about one of them, and getting those that are missing.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::{
    check::{self, CheckArgs},
    print,
};
use crate::{
    Error, Result,
    data::{
        DataFile, Dataset, Folders, Kind, Manifest, Opened, Parts,
        fetch::{self, Fetched},
        open,
    },
};

#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// List the data sets known by name, and which of them are here
    List {
        #[command(flatten)]
        data: DataArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show all about one data set: shape, span, split, licence, source, what is odd about it
    Show {
        /// Its name, as `data list` prints it
        name: String,
        #[command(flatten)]
        data: DataArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Examine a file: what is wrong with it, and the remedy by name
    Check(CheckArgs),
    /// Download data sets, or say how to get those that have no direct address
    Fetch {
        /// Their names, as `data list` prints them
        #[arg(required = true)]
        names: Vec<String>,
        #[command(flatten)]
        data: DataArgs,
    },
}

#[derive(Debug, Args)]
pub struct DataArgs {
    /// The folder data files are in [default: $LONGCAST_DATA, then datasets/]
    #[arg(long = "data", value_name = "DIR")]
    folder: Option<PathBuf>,
}

/// Runs `longcast data …`; the exit code is 1 if something could not be fetched.
pub fn run(command: &DataCommand) -> anyhow::Result<ExitCode> {
    let data = match command {
        DataCommand::Check(args) => return check::run(args.clone()),
        DataCommand::List { data, .. } | DataCommand::Show { data, .. } | DataCommand::Fetch { data, .. } => data,
    };
    let folders = Folders::new(data.folder.as_deref());
    let manifest = Manifest::of(&folders)?;
    match command {
        DataCommand::List { json: true, .. } => print(&pretty(&list_as_json(&manifest, &folders)?))?,
        DataCommand::List { .. } => print(&list(&manifest, &folders)?)?,
        DataCommand::Show { name, json, .. } => {
            let facts = Facts::of(manifest.get(name)?, &folders)?;
            print(&if *json { pretty(&facts.as_json()) } else { facts.as_text() })?;
        }
        DataCommand::Fetch { names, .. } => {
            let datasets = names.iter().map(|name| manifest.get(name)).collect::<Result<Vec<_>>>()?;
            return fetch_all(&datasets, &folders);
        }
        DataCommand::Check(_) => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// Series first, then collections, then what is built in.
fn in_order(manifest: &Manifest) -> Vec<&Dataset> {
    let mut datasets: Vec<&Dataset> = manifest.iter().collect();
    datasets.sort_by_key(|dataset| match dataset.kind {
        Kind::Series(_) => 0,
        Kind::Collection(_) => 1,
        Kind::Builtin(_) => 2,
    });
    datasets
}

fn list(manifest: &Manifest, folders: &Folders) -> Result<String> {
    let mut table = vec![["name", "rows", "variates", "step", "split", "where"].map(str::to_string)];
    for dataset in in_order(manifest) {
        let number = |number: Option<usize>| number.map_or("-".to_string(), |number| number.to_string());
        let (rows, variates, split) = match &dataset.kind {
            Kind::Collection(collection) => (
                format!("{} series", number(collection.series)),
                "1".to_string(),
                format!("last {} are test", collection.horizon),
            ),
            _ => (number(dataset.rows), number(dataset.variates), split_text(split_rows(dataset)?)),
        };
        let step = dataset.step.map_or("-".to_string(), |step| step.to_string());
        table.push([dataset.name.clone(), rows, variates, step, split, place(dataset, folders)]);
    }
    Ok(align(&table))
}

/// Left-aligned columns, two spaces apart; numbers to the right.
fn align<const COLUMNS: usize>(table: &[[String; COLUMNS]]) -> String {
    let widths: [usize; COLUMNS] =
        std::array::from_fn(|column| table.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    let mut text = String::new();
    for row in table {
        let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| match column {
            1 | 2 => format!("{cell:>width$}"),
            _ => format!("{cell:<width$}"),
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Rows to train on, to choose by, and to be scored on, where they are known.
fn split_rows(dataset: &Dataset) -> Result<Option<[usize; 3]>> {
    let (Some(rule), Some(rows)) = (&dataset.split, dataset.rows) else {
        return Ok(None);
    };
    let split = rule.split(rows)?;
    Ok(Some([split.train.len(), split.valid.len(), split.test.len()]))
}

fn split_text(split: Option<[usize; 3]>) -> String {
    split.map_or("-".to_string(), |[train, valid, test]| format!("{train} / {valid} / {test}"))
}

/// Where the files are; `None` if one is missing.
fn paths(dataset: &Dataset, folders: &Folders) -> Option<Vec<PathBuf>> {
    dataset.files().into_iter().map(|file| folders.locate(file)).collect()
}

fn place(dataset: &Dataset, folders: &Folders) -> String {
    match (&dataset.kind, paths(dataset, folders)) {
        (Kind::Builtin(_), _) => "built in".to_string(),
        (_, Some(paths)) => paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "),
        (_, None) if dataset.can_be_fetched() => "not here: fetch".to_string(),
        (_, None) => "not here: by hand".to_string(),
    }
}

fn list_as_json(manifest: &Manifest, folders: &Folders) -> Result<Value> {
    in_order(manifest).into_iter().map(|dataset| as_json(dataset, folders)).collect::<Result<Vec<_>>>().map(Value::from)
}

/// What the manifest says, and whether the files are here.
fn as_json(dataset: &Dataset, folders: &Folders) -> Result<Value> {
    let (kind, series, horizon) = match &dataset.kind {
        Kind::Series(_) => ("series", Some(1), None),
        Kind::Collection(collection) => ("collection", collection.series, Some(collection.horizon)),
        Kind::Builtin(_) => ("built in", Some(1), None),
    };
    let files = dataset.files().into_iter().map(|file| file_as_json(file, folders)).collect::<Vec<_>>();
    Ok(json!({
        "name": dataset.name,
        "kind": kind,
        "here": paths(dataset, folders).is_some(),
        "rows": dataset.rows,
        "variates": dataset.variates,
        "series": series,
        "horizon": horizon,
        "step": dataset.step,
        "season": dataset.season(),
        "calendar": dataset.calendar,
        "split": dataset.split,
        "split_rows": split_rows(dataset)?,
        "licence": dataset.licence,
        "source": dataset.source,
        "odd": dataset.odd,
        "how": dataset.how,
        "files": files,
    }))
}

fn file_as_json(file: &DataFile, folders: &Folders) -> Value {
    json!({
        "file": file.file,
        "path": folders.locate(file),
        "sha256": file.sha256,
        "url": file.url,
    })
}

/// All about one data set; what only its files can tell is there when they are.
struct Facts<'a> {
    dataset: &'a Dataset,
    folders: &'a Folders,
    opened: Option<Opened>,
    /// Why a file that is here is not the one the manifest knows.
    changed: Option<Error>,
    split: Option<[usize; 3]>,
}

impl<'a> Facts<'a> {
    fn of(dataset: &'a Dataset, folders: &'a Folders) -> Result<Self> {
        let here = paths(dataset, folders).is_some();
        let (opened, changed) = match here.then(|| open(dataset, folders)).transpose() {
            Ok(opened) => (opened, None),
            Err(error @ Error::Checksum { .. }) => (None, Some(error)),
            Err(error) => return Err(error),
        };
        let split = match &opened {
            Some(Opened { parts: Parts::Rule(rule), series, .. }) => {
                let split = rule.split(series[0].len())?;
                Some([split.train.len(), split.valid.len(), split.test.len()])
            }
            _ => split_rows(dataset)?,
        };
        Ok(Self { dataset, folders, opened, changed, split })
    }

    /// First and last timestamp of a series.
    fn span(&self) -> Option<[String; 2]> {
        let timestamps = self.opened.as_ref()?.series.first()?.timestamps();
        Some([timestamps.first()?.to_string(), timestamps.last()?.to_string()])
    }

    /// Fewest and most rows of the series.
    fn rows(&self) -> Option<(usize, usize)> {
        let Some(opened) = &self.opened else {
            return self.dataset.rows.map(|rows| (rows, rows));
        };
        let rows = opened.series.iter().map(|series| series.len());
        Some((rows.clone().min()?, rows.max()?))
    }

    fn variates(&self) -> Option<usize> {
        match &self.opened {
            Some(opened) => opened.series.first().map(|series| series.variates().len()),
            None => self.dataset.variates,
        }
    }

    fn checksum(&self) -> Option<String> {
        if let Some(changed) = &self.changed {
            return Some(changed.to_string());
        }
        let opened = self.opened.as_ref()?;
        let files = self.dataset.files();
        Some(match files.iter().all(|file| file.sha256.is_some()) {
            _ if files.is_empty() => opened.sha256.clone(),
            true => "as in the manifest".to_string(),
            false => format!("{}; the manifest has none to compare with", opened.sha256),
        })
    }

    fn as_text(&self) -> String {
        let dataset = self.dataset;
        let mut lines: Vec<(&str, Option<String>)> = vec![("name", Some(dataset.name.clone()))];
        if let Kind::Collection(collection) = &dataset.kind {
            lines.push(("series", collection.series.map(|series| series.to_string())));
            lines.push(("split", Some(format!("the last {} rows of each series are test", collection.horizon))));
        }
        lines.push((
            "rows",
            self.rows().map(|(fewest, most)| match fewest == most {
                true => most.to_string(),
                false => format!("{fewest} to {most}"),
            }),
        ));
        lines.push(("variates", self.variates().map(|variates| variates.to_string())));
        lines.push(("step", dataset.step.map(|step| step.to_string())));
        lines.push((
            "season",
            Some(dataset.season()).filter(|season| *season > 1).map(|season| format!("{season} rows")),
        ));
        lines.push(("span", self.span().map(|[first, last]| format!("{first} … {last}"))));
        if dataset.split.is_some() {
            let parts = self.split.map(|split| format!("{} rows (train / valid / test)", split_text(Some(split))));
            lines.push(("split", parts));
        }
        lines.push(("licence", Some(dataset.licence.clone())));
        lines.push(("source", Some(dataset.source.clone())));
        lines.push(("odd", dataset.odd.clone()));
        lines.push(("where", Some(place(dataset, self.folders))));
        lines.push(("sha256", self.checksum()));
        if self.opened.is_none() {
            lines.push(("how", Some(how(dataset))));
        }
        lines.into_iter().filter_map(|(name, value)| value.map(|value| (name, value))).fold(
            String::new(),
            |mut text, (name, value)| {
                let value = value.trim_end().replace('\n', &format!("\n{:11}", ""));
                writeln!(text, "{name:<11}{value}").expect("a string takes any text");
                text
            },
        )
    }

    fn as_json(&self) -> Value {
        let mut value = as_json(self.dataset, self.folders).unwrap_or_default();
        if let (Some(opened), Some(entries)) = (&self.opened, value.as_object_mut()) {
            entries
                .insert("rows".into(), json!(self.rows().filter(|(fewest, most)| fewest == most).map(|rows| rows.1)));
            entries.insert("variates".into(), json!(self.variates()));
            entries.insert("span".into(), json!(self.span()));
            entries.insert("split_rows".into(), json!(self.split));
            entries.insert("sha256".into(), json!(opened.sha256));
            entries.insert("checksum_matches".into(), json!(true));
        }
        if let (Some(changed), Some(entries)) = (&self.changed, value.as_object_mut()) {
            entries.insert("checksum_matches".into(), json!(false));
            entries.insert("problem".into(), json!(changed.to_string()));
        }
        value
    }
}

fn how(dataset: &Dataset) -> String {
    match dataset.can_be_fetched() {
        true => format!("longcast data fetch {}", dataset.name),
        false => dataset.how.clone().unwrap_or_else(|| "the manifest does not say".to_string()),
    }
}

/// Fetches one after the other; what fails is said, and the rest goes on.
fn fetch_all(datasets: &[&Dataset], folders: &Folders) -> anyhow::Result<ExitCode> {
    let folder = folders.0.first().map_or(Path::new("datasets"), PathBuf::as_path);
    let mut code = ExitCode::SUCCESS;
    for dataset in datasets {
        if dataset.files().is_empty() {
            print(&format!("{}: built in, nothing to fetch\n", dataset.name))?;
        }
        for file in dataset.files() {
            match fetch_file(dataset, file, folder) {
                Ok(Fetched::Downloaded(path)) => print(&format!("{}: {}\n", dataset.name, path.display()))?,
                Ok(Fetched::Present(path)) => {
                    print(&format!("{}: {} is here already\n", dataset.name, path.display()))?;
                }
                Err(error) => {
                    say!("longcast: {}: {error}", dataset.name);
                    code = ExitCode::FAILURE;
                    break;
                }
            }
        }
    }
    Ok(code)
}

fn fetch_file(dataset: &Dataset, file: &DataFile, folder: &Path) -> Result<Fetched> {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {bytes} / {total_bytes} {bytes_per_sec} {eta}")
        .expect("the template is well formed");
    let bar = ProgressBar::no_length().with_style(style).with_message(dataset.name.clone());
    let fetched = fetch::fetch(dataset, file, folder, &mut |done, total| {
        if let Some(total) = total {
            bar.set_length(total);
        }
        bar.set_position(done);
    });
    bar.finish_and_clear();
    fetched
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists() -> (tempfile::TempDir, Manifest, Folders) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("mine.csv"), "date,a\n2020-01-01,1\n2020-01-02,2\n2020-01-03,3\n").unwrap();
        let text = "[Mine]\nfile = \"mine.csv\"\nrows = 3\nsplit = { rows = [1, 1, 1] }\nstep = \"1d\"\n\
                    [Absent]\nfile = \"absent.csv\"\nhow = \"Ask for it.\"\n\
                    [Synthetic]\nbuiltin = \"synthetic\"\nrows = 2160\nvariates = 6\nstep = \"1h\"";
        let manifest = Manifest::parse(text, Path::new("manifest.toml")).unwrap();
        let folders = Folders(vec![folder.path().to_path_buf()]);
        (folder, manifest, folders)
    }

    #[test]
    fn the_list_says_what_is_here() -> Result<()> {
        let (folder, manifest, folders) = lists();
        let expected = format!(
            "\
name       rows  variates  step  split             where
Absent        -         -  -     -                 not here: by hand
Mine          3         -  1d    1 / 1 / 1         {}
Synthetic  2160         6  1h    1512 / 216 / 432  built in
",
            folder.path().join("mine.csv").display()
        );
        assert_eq!(list(&manifest, &folders)?, expected);
        Ok(())
    }

    #[test]
    fn a_set_that_is_here_shows_its_span() -> Result<()> {
        let (_folder, manifest, folders) = lists();
        let text = Facts::of(manifest.get("Mine")?, &folders)?.as_text();
        assert!(text.contains("span       2020-01-01 00:00:00 … 2020-01-03 00:00:00\n"), "{text}");
        assert!(text.contains("split      1 / 1 / 1 rows (train / valid / test)\n"), "{text}");
        Ok(())
    }

    #[test]
    fn a_set_that_is_not_here_shows_how_to_get_it() -> Result<()> {
        let (_folder, manifest, folders) = lists();
        let text = Facts::of(manifest.get("Absent")?, &folders)?.as_text();
        assert!(text.ends_with("where      not here: by hand\nhow        Ask for it.\n"), "{text}");
        Ok(())
    }

    #[test]
    fn the_built_in_manifest_can_be_listed_and_shown() -> Result<()> {
        let (manifest, nowhere) = (Manifest::builtin()?, Folders::default());
        assert_eq!(list(&manifest, &nowhere)?.lines().count(), 1 + 38);
        assert_eq!(list_as_json(&manifest, &nowhere)?.as_array().map(Vec::len), Some(38));
        for dataset in manifest.iter() {
            let facts = Facts::of(dataset, &nowhere)?;
            assert!(facts.as_text().contains(&dataset.licence));
            assert_eq!(facts.as_json()["name"], dataset.name.as_str());
        }
        Ok(())
    }
}
