//! Checks a folder of golden files against the models here: `cargo run --example check_golden DIR`.
//!
//! Prints a line for each: the largest difference of output, gradient, Adam steps and loss, and what is
//! allowed. Exit code 1 if one is over its limit, 2 if there is nothing to check.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::{error::Error, fs, path::PathBuf, process::ExitCode};

use longcast::models::neural::golden::{Verdict, check};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let Some(folder) = std::env::args_os().nth(1) else {
        eprintln!("usage: check_golden DIR");
        return Ok(ExitCode::from(2));
    };
    let mut files: Vec<PathBuf> =
        fs::read_dir(&folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    if files.is_empty() {
        eprintln!("{}: no .json file in it", folder.display());
        return Ok(ExitCode::from(2));
    }
    let mut failed = 0;
    for file in &files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        match check(file) {
            Ok(Verdict::Checked(differences)) => {
                let passed = differences.pass();
                failed += usize::from(!passed);
                print!("{} {name:<22}", if passed { "ok    " } else { "FAILED" });
                for (what, difference) in differences.all() {
                    print!("  {what} {:.1e} ≤ {:.1e}", difference.found, difference.limit);
                }
                println!();
            }
            Ok(Verdict::Skipped { model }) => println!("skip   {name:<22}  '{model}' is not a model here"),
            Err(error) => {
                failed += 1;
                println!("FAILED {name:<22}  {error}");
            }
        }
    }
    Ok(ExitCode::from(u8::from(failed > 0)))
}
