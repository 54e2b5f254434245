//! The one integration binary: each further one would link polars again.

#![allow(clippy::print_stderr, clippy::print_stdout, clippy::unwrap_used)]

mod cli;
mod contract;
mod layering;
mod leakage;
mod loader;
mod pipeline;
mod protocol;

use std::path::{Path, PathBuf};

use longcast::data::Catalogue;

/// The folder with real data, named by `LONGCAST_DATA`; without it, tests on real data say that
/// they were skipped and pass.
fn real_data_folder() -> Option<PathBuf> {
    let folder = std::env::var_os("LONGCAST_DATA").map(PathBuf::from);
    // Cargo runs tests in the package's folder, so a relative path is relative to that.
    match folder {
        Some(folder) if folder.is_dir() => Some(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)),
        _ => {
            eprintln!("skipped: no real data (LONGCAST_DATA names no folder)");
            None
        }
    }
}

fn real_data() -> Option<Catalogue> {
    Some(Catalogue::new(Some(&real_data_folder()?)).expect("the manifest can be read"))
}
