//! `longcast data check`: the data doctor.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use super::read_args::ReadArgs;
use crate::data::doctor::{Diagnosis, Severity, examine};

#[derive(Clone, Debug, clap::Args)]
pub struct CheckArgs {
    /// A .csv, .csv.gz or .parquet file
    file: PathBuf,

    #[command(flatten)]
    read: ReadArgs,

    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

/// Prints what the doctor found; exit code 1 if the file cannot be used as it is.
pub fn run(args: CheckArgs) -> anyhow::Result<ExitCode> {
    let diagnosis = examine(&args.file, &args.read.into())?;
    match args.json {
        true => super::print(&(serde_json::to_string_pretty(&diagnosis)? + "\n"))?,
        false => {
            let mut text = Vec::new();
            print(&mut text, &diagnosis)?;
            super::print(&String::from_utf8_lossy(&text))?;
        }
    }
    Ok(if diagnosis.usable() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(out: &mut impl Write, diagnosis: &Diagnosis) -> io::Result<()> {
    writeln!(out, "{}\n", diagnosis.file)?;
    if diagnosis.rows > 0 {
        for (label, value) in facts(diagnosis) {
            writeln!(out, "  {label:<12}{value}")?;
        }
        writeln!(out)?;
    }
    for finding in &diagnosis.findings {
        let severity = match finding.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        };
        writeln!(out, "  {severity:<12}{}", finding.text)?;
        if let Some(remedy) = &finding.remedy {
            writeln!(out, "  {:<12}remedy: {remedy}", "")?;
        }
    }
    if !diagnosis.findings.is_empty() {
        writeln!(out)?;
    }
    let errors = diagnosis.findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    match errors {
        0 => writeln!(out, "  This file can be used."),
        1 => writeln!(out, "  This file cannot be used as it is: 1 error."),
        _ => writeln!(out, "  This file cannot be used as it is: {errors} errors."),
    }
}

fn facts(diagnosis: &Diagnosis) -> Vec<(String, String)> {
    let mut facts = vec![
        ("rows".to_string(), diagnosis.rows.to_string()),
        ("variates".to_string(), format!("{} ({})", diagnosis.variates.len(), names(&diagnosis.variates))),
    ];
    if let (Some(column), Some(first), Some(last)) = (&diagnosis.time_column, &diagnosis.first, &diagnosis.last) {
        facts.push(("time".to_string(), format!("column '{column}', {first} to {last}")));
    }
    if let Some(step) = diagnosis.step {
        let regular = match diagnosis.irregular_steps {
            0 => "throughout".to_string(),
            1 => "with 1 exception".to_string(),
            count => format!("with {count} exceptions"),
        };
        facts.push(("step".to_string(), format!("{step}, {regular}")));
    }
    if let Some(season) = diagnosis.season.filter(|season| *season > 1) {
        facts.push(("season".to_string(), format!("{season} steps, by the step alone")));
    }
    for parts in &diagnosis.splits {
        let longest = match parts.longest_lookback.last() {
            Some(fit) => format!("; horizon {} with a lookback up to {}", fit.horizon, fit.lookback),
            None => format!("; horizons up to {}", parts.longest_horizon),
        };
        let rows = format!("{} / {} / {} rows{longest}", parts.train, parts.validation, parts.test);
        facts.push((parts.ratio.clone(), rows));
    }
    if let Some(sha256) = &diagnosis.sha256 {
        facts.push(("sha256".to_string(), sha256.clone()));
    }
    facts
}

fn names(variates: &[String]) -> String {
    match variates {
        [first, .., last] if variates.len() > 8 => format!("{first} ... {last}"),
        _ => variates.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::data::loader::ReadOptions;

    fn printed(text: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("data.csv");
        fs::write(&file, text).unwrap();
        let mut out = Vec::new();
        print(&mut out, &examine(&file, &ReadOptions::default()).unwrap()).unwrap();
        String::from_utf8(out)
            .unwrap()
            .lines()
            .skip(2)
            .filter(|line| !line.contains("sha256"))
            .map(|line| format!("{line}\n"))
            .collect()
    }

    #[test]
    fn a_healthy_file_is_described() {
        let rows: String = (0..24).map(|hour| format!("2020-01-01 {hour:02}:00,{hour}.5,{}\n", hour % 7)).collect();
        let expected = "  rows        24
  variates    2 (a, b)
  time        column 'date', 2020-01-01 00:00:00 to 2020-01-01 23:00:00
  step        1h, throughout
  season      24 steps, by the step alone
  70/10/20    16 / 4 / 4 rows; horizons up to 4
  60/20/20    14 / 6 / 4 rows; horizons up to 4

  This file can be used.
";
        assert_eq!(printed(&format!("date,a,b\n{rows}")), expected);
    }

    #[test]
    fn a_fault_comes_with_its_remedy() {
        let expected = "  error       line 3: 'b' is not a number: \"x\"
              remedy: leave the cell empty if the value is missing, or choose the columns with --columns

  This file cannot be used as it is: 1 error.
";
        assert_eq!(printed("a,b\n1,2\n3,x\n"), expected);
    }

    #[test]
    fn the_arguments_are_consistent() {
        use clap::Args;
        CheckArgs::augment_args(clap::Command::new("check")).debug_assert();
    }
}
