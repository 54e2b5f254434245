//! `longcast export`: the weights of a pipeline under the names that a paper's code has for them.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, ValueEnum};

use super::print;
use crate::{
    benchmark::write_whole,
    forecaster::{Pipeline, Registry},
    models::neural::reference::{Reference, to_safetensors},
};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    longcast export models/itransformer --output itransformer.safetensors\n\n\
    The names are those of the reference's state dict; olinear's encoder is written twice, as there. What follows from a\n\
    formula or counts batches is not written, but named: tables of positions (position_embedding.pe of autoformer,\n\
    informer and gpht) and informer's norm.num_batches_tracked. OLinear's q_mat and q_out_mat, and OLinear-C's mixing,\n\
    are in no state dict: they are written beside it as .npy files, for `longcast import --q-mat` and so on.")]
pub struct ExportArgs {
    /// A folder that holds a pipeline
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// What to write
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// The file to write
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Format {
    #[default]
    Safetensors,
}

pub fn run(args: &ExportArgs, models: &Registry) -> anyhow::Result<ExitCode> {
    let pipeline = Pipeline::load(&args.dir, models)?;
    let reference = Reference::of(pipeline.model())?;
    let exported = reference.export(&args.dir, pipeline.params())?;
    let bytes = match args.format {
        Format::Safetensors => to_safetensors(&exported.tensors)?,
    };
    write_whole(&args.output, &bytes)?;
    let mut text = format!("{} tensors in {}\n", exported.tensors.len(), args.output.display());
    for (name, tensor) in &exported.beside {
        let file = args.output.with_extension(format!("{name}.npy"));
        let matrix = tensor.dims().iter().rev().take(2).rev().copied().collect::<Vec<_>>();
        let written = tensor.reshape(matrix).and_then(|tensor| tensor.write_npy(&file));
        written.map_err(|error| anyhow::anyhow!("{}: cannot write: {error}", file.display()))?;
        text += &format!("  {name} in {}\n", file.display());
    }
    for name in &exported.left_out {
        text += &format!("  without {name}\n");
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}
