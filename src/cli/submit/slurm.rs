//! A script for sbatch: an array of jobs, one for each part.

use minijinja::{Environment, UndefinedBehavior, context};

use super::{SubmitArgs, arguments, text};
use crate::benchmark::{FIRST_INDEX, SHARDS, Software, Suite};

const TEMPLATE: &str = include_str!("slurm.sh.jinja");

pub fn script(args: &SubmitArgs, suite: &Suite) -> anyhow::Result<String> {
    let mut command = vec![text(&args.program)?];
    command.extend(arguments(args, &args.suite, args.data.as_deref())?);
    let out = text(&args.out)?;
    let mut templates = Environment::new();
    templates.set_undefined_behavior(UndefinedBehavior::Strict);
    let script = templates.render_str(
        TEMPLATE,
        context! {
            suite => &suite.name,
            version => Software::this().version,
            jobs => args.jobs.get(),
            last => args.jobs.get() - 1,
            cpus => args.cpus.get(),
            memory => args.memory.get(),
            hours => args.hours.get(),
            shards => SHARDS,
            first_index => FIRST_INDEX,
            command => shlex::try_join(command.iter().map(String::as_str))?,
            out => shlex::try_quote(&out)?,
            separate => args.separate,
        },
    )?;
    Ok(script + "\n")
}
