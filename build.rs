//! Puts the git revision into the program, so that each record says what made it, and a hash of what it is built from,
//! so that a checkpoint is gone on from by the same program alone.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::Path,
    process::Command,
};

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok().map(|text| text.trim().to_string())
}

/// All files in a folder and below, in the order of their names, or a file.
fn add(path: &Path, hasher: &mut DefaultHasher) -> std::io::Result<()> {
    if path.is_file() {
        path.hash(hasher);
        fs::read(path)?.hash(hasher);
        return Ok(());
    }
    let mut below = fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
    below.sort();
    below.iter().try_for_each(|path| add(path, hasher))
}

/// Of the sources, of those of other crates as the lock file names them, and of how they are compiled.
fn build() -> u64 {
    let mut hasher = DefaultHasher::new();
    for path in ["src", "Cargo.toml", "Cargo.lock", "build.rs"].map(Path::new).into_iter().filter(|path| path.exists())
    {
        add(path, &mut hasher).expect("a file of the package can be read");
    }
    for variable in ["TARGET", "PROFILE", "OPT_LEVEL", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"] {
        std::env::var(variable).ok().hash(&mut hasher);
    }
    let compiler = std::env::var_os("RUSTC").and_then(|rustc| Command::new(rustc).arg("-V").output().ok());
    compiler.map(|output| output.stdout).hash(&mut hasher);
    hasher.finish()
}

fn main() {
    println!("cargo::rustc-env=LONGCAST_BUILD={:016x}", build());
    let revision =
        match (git(&["rev-parse", "--short=12", "HEAD"]), git(&["status", "--porcelain", "src", "Cargo.lock"])) {
            (Some(revision), Some(changes)) if changes.is_empty() => revision,
            (Some(revision), _) => format!("{revision}-dirty"),
            _ => "unknown".into(),
        };
    println!("cargo::rustc-env=LONGCAST_REVISION={revision}");
    for path in ["src", "Cargo.toml", "Cargo.lock", "build.rs"] {
        println!("cargo::rerun-if-changed={path}");
    }
    // A commit moves the branch and its log without touching a source file.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
}
