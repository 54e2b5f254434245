//! `longcast models`: what there is, and what can be set.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::print;
use crate::{
    forecaster::{Params, Registry},
    models::neural::Training,
};

#[derive(Debug, Args)]
pub struct ModelsArgs {
    /// Show the params of this model, with their defaults
    name: Option<String>,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &ModelsArgs, models: &Registry) -> anyhow::Result<ExitCode> {
    let names: Vec<&str> = match &args.name {
        Some(name) => vec![name.as_str()],
        None => models.names().collect(),
    };
    let mut entries = Vec::new();
    for name in names {
        let mut params = models.resolve(name, &Params::default())?;
        if serde_json::to_value(&params)?.get("training").is_some() {
            Training::LEFT_OUT.iter().try_for_each(|setting| params.set(&format!("training.{setting}")))?;
        }
        entries.push((name, models.about(name)?, params));
    }
    if args.json {
        let list: Vec<_> = entries
            .iter()
            .map(|(name, about, params)| json!({ "name": name, "about": about, "params": params }))
            .collect();
        print(&(serde_json::to_string_pretty(&list)? + "\n"))?;
    } else if args.name.is_some() {
        for (name, about, params) in entries {
            print(&format!("# {name}: {about}\n{}", toml::to_string(&params)?))?;
        }
    } else {
        for (name, about, _) in entries {
            print(&format!("{name:<16}{about}\n"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
