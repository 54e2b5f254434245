//! Puts the git revision into the program, so that each record says what made it.

use std::process::Command;

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok().map(|text| text.trim().to_string())
}

fn main() {
    let revision =
        match (git(&["rev-parse", "--short=12", "HEAD"]), git(&["status", "--porcelain", "src", "Cargo.lock"])) {
            (Some(revision), Some(changes)) if changes.is_empty() => revision,
            (Some(revision), _) => format!("{revision}-dirty"),
            _ => "unknown".into(),
        };
    println!("cargo::rustc-env=LONGCAST_REVISION={revision}");
    for path in ["src", "Cargo.lock", "build.rs"] {
        println!("cargo::rerun-if-changed={path}");
    }
    // A commit moves the branch and its log without touching a source file.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
}
