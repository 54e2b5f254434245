//! A record: all that went into a score and all that came out, one JSON file a task.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::suite::Task;
use crate::{
    Error, Result,
    data::Calendar,
    evaluator::{Example, IntervalScores, Scores},
    forecaster::{Device, EpochReport},
    windows::{Scaler, Split},
};

/// The version of the format; a record of another version is made anew.
pub const FORMAT: u32 = 1;

/// A task that was run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    pub format: u32,
    pub task: Task,
    pub data: DataRecord,
    /// Windows the forecaster learnt from.
    pub windows_train: usize,
    /// Windows it could choose and stop by.
    pub windows_valid: usize,
    /// Windows the scores are means over.
    pub windows_scored: usize,
    /// Windows whose targets lie in the test rows.
    pub windows_possible: usize,
    /// What is trained in epochs: how each of them went.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub curve: Vec<EpochReport>,
    pub scores: Scores,
    /// The scores of its intervals, where some were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intervals: Option<IntervalScores>,
    /// Some of its forecasts, to look at; none in a record from before they were kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<Example>,
    pub software: Software,
    pub machine: Machine,
    pub seconds: Seconds,
    /// The most memory that the program held while the task ran, in MB of a million bytes: what it keeps
    /// from tasks before is part of it. `None` where the system does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory_mb: Option<f64>,
}

/// What was measured on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataRecord {
    /// sha256 of the content, after expansion where it was compressed.
    pub sha256: String,
    pub rows: usize,
    pub variates: usize,
    /// Series in a set of many; their rows are added up in `rows`.
    pub series: usize,
    /// Steps in a season.
    pub season: usize,
    pub calendar: Calendar,
    /// Rows of each part; `None` in a set of many series, each split before its last horizon.
    pub split: Option<Split>,
    /// Mean and deviation of the training rows; `None` in a set of many series.
    pub scaler: Option<Scaler>,
}

/// What ran.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Software {
    pub version: String,
    /// The git revision it was built from, "-dirty" with changes, "unknown" outside a checkout.
    pub revision: String,
}

/// What it ran on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    pub cpu: String,
    pub os: String,
    pub threads: usize,
    /// What its processor offers of what the kernels use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
    /// Where the model computed.
    #[serde(default, skip_serializing_if = "is_cpu")]
    pub device: Device,
}

fn is_cpu(device: &Device) -> bool {
    *device == Device::Cpu
}

/// How long it took.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seconds {
    /// Wall time.
    pub fit: f64,
    /// Wall time.
    pub evaluate: f64,
    /// Time of all processors together, for both: what else the machine did hardly shows in it. `None` where
    /// it was not recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<f64>,
}

impl Software {
    /// This program.
    pub fn this() -> Self {
        Self { version: env!("CARGO_PKG_VERSION").into(), revision: env!("LONGCAST_REVISION").into() }
    }
}

impl Machine {
    /// This machine, and where on it a model computed.
    pub fn this(device: Device) -> Self {
        let named = fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("model name"))?;
            Some(line.split_once(':')?.1.trim().to_string())
        });
        Self {
            cpu: named.unwrap_or_else(|| std::env::consts::ARCH.into()),
            os: std::env::consts::OS.into(),
            threads: rayon::current_num_threads(),
            features: features(),
            device,
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn features() -> Vec<String> {
    let found = [
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
    ];
    found.iter().filter(|(_, found)| *found).map(|(name, _)| (*name).to_string()).collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn features() -> Vec<String> {
    vec![]
}

/// What the processors have spent on this program so far, in seconds; `None` where the system does not say.
pub(super) fn cpu_seconds() -> Option<f64> {
    cpu_time::ProcessTime::try_now().ok().map(|time| time.as_duration().as_secs_f64())
}

/// The most memory the program has held, from here on.
pub(super) struct PeakMemory(());

impl PeakMemory {
    /// Forgets what was held before, where the system lets it.
    pub fn from_here() -> Self {
        // Linux: 5 sets the peak back to what is held now. Elsewhere there is no such file, and no peak.
        let _ = fs::write("/proc/self/clear_refs", "5");
        Self(())
    }

    pub fn megabytes(&self) -> Option<f64> {
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        let kibibytes: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
        Some((kibibytes * 1.024).round() / 1e3)
    }
}

/// Pretty JSON but for lists of numbers, which would take a line each: a record holds one for each
/// step ahead.
#[derive(Default)]
struct ListsOnOneLine<'a> {
    pretty: PrettyFormatter<'a>,
    /// How many lists are open.
    lists: usize,
}

impl Formatter for ListsOnOneLine<'_> {
    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.lists += 1;
        writer.write_all(b"[")
    }

    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.lists -= 1;
        writer.write_all(b"]")
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        if self.lists > 0 { writer.write_all(b"{") } else { self.pretty.begin_object(writer) }
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        if self.lists > 0 { writer.write_all(b"}") } else { self.pretty.end_object(writer) }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        match (self.lists > 0, first) {
            (true, true) => Ok(()),
            (true, false) => writer.write_all(b", "),
            (false, _) => self.pretty.begin_object_key(writer, first),
        }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.pretty.begin_object_value(writer)
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        if self.lists > 0 { Ok(()) } else { self.pretty.end_object_value(writer) }
    }
}

impl Record {
    /// Reads a record.
    ///
    /// # Errors
    /// If it cannot be read or is not a whole record of this format.
    pub fn read(path: &Path) -> Result<Self> {
        Self::parse(path, &fs::read_to_string(path).map_err(Error::io("read", path))?)
    }

    /// The record that `text` is, as it was read from `path`.
    pub(super) fn parse(path: &Path, text: &str) -> Result<Self> {
        let record: Self = serde_json::from_str(text).map_err(|error| {
            Error::file(path, format!("not a whole record ({error}); run the suite again to redo it"))
        })?;
        match record.format {
            FORMAT => Ok(record),
            other => Err(Error::file(path, format!("a record of format {other}, not {FORMAT}; run the suite again"))),
        }
    }

    /// Writes the record at once and whole: it is there complete, or not at all.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        write_whole(path, self.to_json()?.as_bytes())
    }

    /// The record as it is written: one line a field, lists of numbers on one line.
    ///
    /// # Errors
    /// If a number is not finite.
    pub fn to_json(&self) -> Result<String> {
        pretty(self)
    }

    /// All records of a folder with their files, in the order of their names, and what could not be read.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn read_all(dir: &Path) -> Result<Found<Self>> {
        Ok(read_each(records_in(dir)?, Self::read))
    }
}

/// What was read, with its file, and what could not be.
pub type Found<T> = (Vec<(PathBuf, T)>, Vec<Error>);

/// What `read` makes of each file, and what it could not read.
pub(super) fn read_each<T>(files: Vec<PathBuf>, read: impl Fn(&Path) -> Result<T>) -> Found<T> {
    let (mut found, mut errors) = (vec![], vec![]);
    for path in files {
        match read(&path) {
            Ok(one) => found.push((path, one)),
            Err(error) => errors.push(error),
        }
    }
    (found, errors)
}

/// JSON to read: one line a field, lists of numbers on one line.
pub(super) fn pretty(value: &impl Serialize) -> Result<String> {
    let mut bytes = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut bytes, ListsOnOneLine::default());
    value.serialize(&mut serializer).map_err(|error| Error::other(error.to_string()))?;
    bytes.push(b'\n');
    String::from_utf8(bytes).map_err(|error| Error::other(error.to_string()))
}

/// What lies in a folder, in the order of names.
pub(super) fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).map_err(Error::io("read the folder", dir))?;
    let paths: io::Result<Vec<PathBuf>> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut paths = paths.map_err(Error::io("read the folder", dir))?;
    paths.sort();
    Ok(paths)
}

/// Whether a file is a record, by its name.
pub(super) fn is_record(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "json")
}

/// The files in a folder, not below it, that are records by their names.
pub(super) fn records_in(dir: &Path) -> Result<Vec<PathBuf>> {
    Ok(entries(dir)?.into_iter().filter(|path| is_record(path)).collect())
}

/// What a file is called in its folder.
pub(super) fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Writes a file called `name` in a folder that is made where there is none.
pub(super) fn write_in(folder: &Path, name: &str, content: &[u8]) -> Result<()> {
    /// Other processes remove the folder when it is empty, each once.
    const TRIES: usize = 100;
    let write = || {
        fs::create_dir_all(folder).map_err(Error::io("make the folder", folder))?;
        write_whole(&folder.join(name), content)
    };
    let gone =
        |done: &Result<()>| matches!(done, Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound);
    (1..TRIES).map(|_| write()).find(|done| !gone(done)).unwrap_or_else(write)
}

/// Writes a file beside itself and renames it, so that no reader ever sees a part of it. A link stays one; a device
/// or a pipe is written to.
///
/// # Errors
/// If it cannot be written; what stood there before stays.
pub fn write_whole(path: &Path, content: &[u8]) -> Result<()> {
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    if fs::metadata(&target).is_ok_and(|there| !there.is_file() && !there.is_dir()) {
        return fs::write(&target, content).map_err(Error::io("write", path));
    }
    let dir = target.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || -> std::io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(".longcast-").suffix(".tmp").tempfile_in(dir)?;
        file.write_all(content)?;
        file.as_file().sync_all()?;
        readable(&file)?;
        file.persist(&target)?;
        Ok(())
    };
    write().map_err(Error::io("write", path))
}

// A temporary file is its owner's alone; what it becomes is for everyone to read.
#[cfg(unix)]
fn readable(file: &NamedTempFile) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.as_file().set_permissions(fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn readable(_: &NamedTempFile) -> std::io::Result<()> {
    Ok(())
}

/// The name of a task's record: what it is in words, and a short hash of all that goes in.
pub fn file_name(task: &Task, data: &DataRecord) -> Result<String> {
    let DataRecord { sha256, season, calendar, split, .. } = data;
    let key = DataKey { sha256, season: *season, calendar: *calendar, split: split.as_ref() };
    let inputs = serde_json::to_vec(&(FORMAT, task, key)).map_err(|error| Error::other(error.to_string()))?;
    let hash = Sha256::digest(inputs);
    let short: String = hash[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{}-{short}.json", in_words(task)))
}

/// The part of a record's name that is in words.
pub fn in_words(task: &Task) -> String {
    let Task { dataset, name, lookback, horizon, seed, .. } = task;
    let [dataset, name] = [dataset, name].map(|name| file_safe(name));
    format!("{dataset}-{name}-{lookback}-{horizon}-s{seed}")
}

/// A record's name less the hash of its inputs: the task in words.
pub fn without_hash(name: &str) -> &str {
    name.rsplit_once('-').map_or(name, |(task, _)| task)
}

/// What of the data goes into a task.
#[derive(Serialize)]
struct DataKey<'a> {
    sha256: &'a str,
    season: usize,
    calendar: Calendar,
    split: Option<&'a Split>,
}

/// `name` as a file may be called: names may hold anything, files are called by letters and digits.
pub fn file_safe(name: &str) -> String {
    name.chars().map(|c| if c.is_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' }).collect()
}
