//! The one integration binary: each further one would link polars again.

#![allow(clippy::print_stderr, clippy::print_stdout, clippy::unwrap_used)]

mod cli;
mod compare;
mod contract;
mod failure;
mod future;
mod golden;
mod hostile_checkpoint;
mod import;
mod latex;
mod layering;
mod leakage;
mod loader;
mod merge;
mod networks;
mod pipeline;
mod pretrain;
mod protocol;
mod serve;
mod submit;
mod torch_file;
mod verify;

use std::path::{Path, PathBuf};

use longcast::{data::Catalogue, forecaster::Params, models};

/// Params with which a model is fitted in no time: its own, but for a network a small one.
fn small(model: &str) -> Params {
    let smaller = [
        "training.epochs=2",
        "training.learning_rate=1e-3",
        "network.d_model=16",
        "network.d_ff=16",
        "network.heads=2",
        "network.layers=1",
        "network.embed_size=3",
        "network.encoder_layers=1",
        "network.token=6",
        "network.pooling=[2, 1]",
    ];
    let models = models::builtin();
    let mut params = Params::default();
    for assignment in smaller {
        let mut with = params.clone();
        with.set(assignment).unwrap();
        if models.resolve(model, &with).is_ok() {
            params = with;
        }
    }
    params
}

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
