//! `longcast verify`: tasks run again from their records.

use std::{
    fmt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use serde::Serialize;

use super::{Usage, print, progress::Progress};
use crate::{
    Error,
    benchmark::{
        BenchObserver, Difference, Event, Prepared, Record, Software, caught, differences, record_files, run_task,
    },
    data::Catalogue,
    forecaster::Registry,
};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    longcast verify reports/records/smoke\n  \
    longcast verify reports/records --sample 20 --at-most 10\n  \
    longcast verify record.json --tolerance 1e-6")]
pub struct VerifyArgs {
    /// Records, or folders of them
    #[arg(required = true, value_name = "RECORD|DIR")]
    paths: Vec<PathBuf>,
    /// Run only so many, taken evenly from all
    #[arg(long, value_name = "COUNT")]
    sample: Option<usize>,
    /// Leave out records of tasks that took more seconds than this
    #[arg(long, value_name = "SECONDS")]
    at_most: Option<f64>,
    /// Let numbers differ by this much, relative to the recorded ones; by default not by a bit
    #[arg(long, default_value_t = 0.0, hide_default_value = true, value_name = "SHARE")]
    tolerance: f64,
    /// Look for data here first
    #[arg(long)]
    data: Option<PathBuf>,
    /// Print what was found as JSON
    #[arg(long)]
    json: bool,
}

/// Differences that are shown of one record; `--json` has all.
const SHOWN: usize = 5;

/// What became of one record.
#[derive(Debug, Serialize)]
struct Finding {
    record: PathBuf,
    #[serde(flatten)]
    outcome: Outcome,
}

#[derive(Debug, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
enum Outcome {
    /// Every number is the recorded one, to the last bit.
    Same,
    /// Numbers differ, by no more than is tolerated.
    Close {
        distance: f64,
    },
    Differs {
        revision: String,
        differences: Vec<Difference>,
    },
    /// It could not be read or run.
    NotRun {
        reason: String,
    },
}

pub fn run(args: &VerifyArgs, models: &Registry) -> anyhow::Result<ExitCode> {
    if args.tolerance.is_nan() || args.tolerance < 0.0 {
        return Err(Usage("--tolerance is a share, such as 1e-6".into()).into());
    }
    let records = chosen(args)?;
    let catalogue = super::catalogue(args.data.as_deref())?;
    super::progress::listen_for_interrupts()?;
    let mut bar = Progress::new(records.len());
    let mut prepared: Option<Prepared> = None;
    let mut findings = Vec::new();
    let mut interrupted = false;
    for (position, (path, record)) in records.into_iter().enumerate() {
        let outcome = match record {
            Err(error) => Outcome::NotRun { reason: error.to_string() },
            Ok(record) => match again(&path, &record, models, &catalogue, &mut prepared, position, &mut bar) {
                Ok(differences) => judged(differences, args.tolerance, &record),
                Err(Error::Interrupted) => {
                    interrupted = true;
                    break;
                }
                Err(error) => Outcome::NotRun { reason: error.to_string() },
            },
        };
        let finding = Finding { record: path, outcome };
        if !args.json {
            bar.result(&finding.to_string())?;
        }
        findings.push(finding);
    }
    bar.finish();
    if args.json {
        print(&format!("{}\n", serde_json::to_string_pretty(&findings)?))?;
    }
    let count = |wanted: fn(&Outcome) -> bool| findings.iter().filter(|finding| wanted(&finding.outcome)).count();
    let same = count(|outcome| matches!(outcome, Outcome::Same));
    let close = count(|outcome| matches!(outcome, Outcome::Close { .. }));
    let differ = count(|outcome| matches!(outcome, Outcome::Differs { .. }));
    let not_run = findings.len() - same - close - differ;
    say!("longcast: {same} the same, {close} within tolerance, {differ} differ, {not_run} could not be run");
    Ok(ExitCode::from(if interrupted { 130 } else { u8::from(differ + not_run > 0) }))
}

type Chosen = (PathBuf, crate::Result<Record>);

/// The records to run, by data set, so that neighbours share their data.
fn chosen(args: &VerifyArgs) -> anyhow::Result<Vec<Chosen>> {
    let files = record_files(&args.paths)?;
    let mut records: Vec<Chosen> = files.into_iter().map(|path| (path.clone(), Record::read(&path))).collect();
    if let Some(most) = args.at_most {
        let took = |record: &Record| record.seconds.fit + record.seconds.evaluate;
        records.retain(|(_, record)| record.as_ref().map_or(true, |record| took(record) <= most));
    }
    if let Some(sample) = args.sample.filter(|sample| *sample < records.len()) {
        let all = records.len();
        let mut position = 0;
        // The middle of each of as many equal parts.
        let wanted: Vec<usize> = (0..sample).map(|part| (2 * part + 1) * all / (2 * sample)).collect();
        records.retain(|_| {
            position += 1;
            wanted.contains(&(position - 1))
        });
    }
    if records.is_empty() {
        return Err(Usage("no record is there to be verified".into()).into());
    }
    records.sort_by_key(|(_, record)| {
        record.as_ref().map_or_else(|_| String::new(), |record| record.task.dataset.clone())
    });
    Ok(records)
}

fn again(
    path: &Path,
    record: &Record,
    models: &Registry,
    catalogue: &Catalogue,
    prepared: &mut Option<Prepared>,
    position: usize,
    bar: &mut Progress,
) -> crate::Result<Vec<Difference>> {
    if prepared.as_ref().is_none_or(|prepared| !prepared.is_as_for(record)) {
        *prepared = Some(Prepared::open_again(catalogue, record)?);
    }
    let data = prepared.as_ref().expect("it was opened above");
    let task = data.resolve(models, &record.task)?;
    let _ = bar.event(position, &task, Event::Started);
    let mut hear = |event: Event<'_>| bar.event(position, &task, event);
    let now = caught(|| run_task(models, &task, data, record.machine.device, None, &mut hear))?;
    let mut found = differences(record, &now)?;
    // The name holds a hash of all that went in.
    let (named, name) = (path.file_name().map(|name| name.to_string_lossy().into_owned()), data.file_name(&task)?);
    if named.as_ref() != Some(&name) {
        found.push(Difference { field: "name of the file".into(), recorded: named.into(), now: name.into() });
    }
    Ok(found)
}

fn judged(mut differences: Vec<Difference>, tolerance: f64, record: &Record) -> Outcome {
    if differences.is_empty() {
        return Outcome::Same;
    }
    if tolerance > 0.0 {
        // Where numbers may differ, the hash of all forecasts says nothing.
        differences.retain(|difference| difference.field != "scores.forecasts");
    }
    let distance = differences.iter().map(Difference::distance).fold(0.0, f64::max);
    match distance <= tolerance {
        true => Outcome::Close { distance },
        false => Outcome::Differs { revision: record.software.revision.clone(), differences },
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let record = self.record.display();
        match &self.outcome {
            Outcome::Same => writeln!(f, "same     {record}"),
            Outcome::Close { distance } => writeln!(f, "close    {record}: within {distance:.1e} of what is recorded"),
            Outcome::NotRun { reason } => writeln!(f, "not run  {record}: {reason}"),
            Outcome::Differs { revision, differences } => {
                let this = Software::this().revision;
                writeln!(f, "differs  {record}, recorded by revision {revision}, run by {this}:")?;
                for difference in differences.iter().take(SHOWN) {
                    writeln!(f, "         {difference}")?;
                }
                match differences.len().checked_sub(SHOWN) {
                    None | Some(0) => Ok(()),
                    Some(more) => writeln!(f, "         and {more} more"),
                }
            }
        }
    }
}
