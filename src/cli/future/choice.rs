//! Which model, which lookback, which rows: what is chosen where nothing is said.

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use super::{ModelArgs, source::Source};
use crate::{
    Error,
    cli::{
        Usage, assigned,
        progress::{self, Work},
    },
    evaluator::{Tried, Verdict, choose},
    forecaster::{Params, Pipeline, Plan, Registry},
    windows::{Part, Split},
};

/// A fitted pipeline and how it came to be.
pub struct Choice {
    pub pipeline: Pipeline,
    /// One for each candidate, where there were several.
    pub tried: Vec<Tried>,
    pub best: usize,
    /// Whether it has learnt from all rows in the end.
    pub refitted: bool,
}

/// A model, params of it, and whether it looks back further than others.
type Candidate = (&'static str, &'static [&'static str], bool);

/// Candidates that take no time to speak of, so that without a limit the choice is the same on every machine.
const QUICK: [Candidate; 7] = [
    ("seasonal-naive", &[], false),
    ("repeat", &[], false),
    ("drift", &[], false),
    ("ridge", &["level=last"], false),
    ("ridge", &["level=last"], true),
    ("ridge", &["level=standardise"], false),
    ("pls", &["level=last"], false),
];

/// Those that are trained, quick ones first.
const TRAINED: [Candidate; 4] =
    [("nlinear", &[], true), ("dlinear", &[], true), ("itransformer", &[], false), ("olinear", &[], false)];

/// The rows to learn from and those to choose by, of all there are: nothing is kept to be scored on. The last fifth
/// chooses, and at least so many rows that twenty windows do, where there are that many.
pub fn split(rows: usize, horizon: usize) -> anyhow::Result<Split> {
    const WINDOWS: usize = 20;
    if horizon == 0 {
        return Err(Usage("--horizon must be at least 1".into()).into());
    }
    let valid = (rows / 5).max(horizon.saturating_add(WINDOWS - 1)).min(rows / 2);
    let train = rows - valid;
    if valid < horizon || train <= horizon {
        let most = rows.saturating_sub(1) / 2;
        let message =
            format!("{rows} rows are too few to forecast {horizon}: half of them must hold a horizon; at most {most}");
        return Err(Usage(message).into());
    }
    Ok(Split { train: 0..train, valid: train..rows, test: rows..rows, lookback_reaches_back: true })
}

/// Rows to look back, for a short and for a long look: two seasons or what is forecast, as far as the training rows
/// allow as many windows as rows to look back. Two days of seconds would be more than any model here can learn from
/// while one waits.
fn lookbacks(train: usize, horizon: usize, season: usize) -> [usize; 2] {
    const MOST: usize = 1024;
    let allowed = ((train - horizon) / 2).max(1);
    let most = MOST.max(horizon).min(allowed);
    let short = (2 * season).max(horizon).max(8).min(most);
    [short, (3 * short).min(most)]
}

fn plans(
    args: &ModelArgs,
    source: &Source,
    split: &Split,
    horizon: usize,
    models: &Registry,
) -> anyhow::Result<Vec<Plan>> {
    let [short, long] = lookbacks(split.train.len(), horizon, source.season);
    let plan = |model: &str, params: Params, lookback: usize| Plan {
        params,
        seed: args.seed,
        device: args.device,
        ..Plan::new(model, args.lookback.unwrap_or(lookback), horizon)
    };
    if let Some(model) = &args.model {
        let lower = models.preset_params(model, args.preset.as_deref(), source.series.name(), horizon)?;
        let params = lower.overlaid(&assigned(&args.set)?);
        models.resolve(model, &params)?;
        let season = source.season;
        // Where a season is longer than all that can be learnt from, the rule still needs it.
        let lookback = if model == "seasonal-naive" { short.max(season) } else { short };
        return Ok(vec![plan(model, params, lookback)]);
    }
    let known: Vec<&str> = models.names().collect();
    let mut plans: Vec<Plan> = Vec::new();
    let trained = TRAINED.iter().filter(|_| args.within.is_some());
    for (model, settings, further) in QUICK.iter().chain(trained).copied() {
        let seasonal = model == "seasonal-naive";
        // The rule takes no time, however far it looks back.
        let lookback = match further {
            true => long,
            false if seasonal => short.max(source.season),
            false => short,
        };
        let lookback = args.lookback.unwrap_or(lookback);
        let seasonless =
            seasonal && (source.season == 1 || source.season > lookback || lookback > split.train.len() - horizon);
        if !known.contains(&model) || seasonless {
            continue;
        }
        let mut params = models.preset_params(model, None, source.series.name(), horizon)?;
        for setting in settings {
            params.set(setting)?;
        }
        let next = plan(model, params, lookback);
        // Where the rows allow only one lookback.
        if !plans
            .iter()
            .any(|plan| (&plan.model, &plan.params, plan.lookback) == (&next.model, &next.params, next.lookback))
        {
            plans.push(next);
        }
    }
    Ok(plans)
}

/// Fits what `args` name, or the best of the candidates; `targets` are the variates that count, all where there are none.
pub fn fitted(
    args: &ModelArgs,
    source: &Source,
    horizon: usize,
    targets: &[String],
    models: &Registry,
    work: &mut Work,
) -> anyhow::Result<Choice> {
    let Source { series, .. } = source;
    if args.lookback == Some(0) {
        return Err(Usage("--lookback must be at least 1".into()).into());
    }
    let started = Instant::now();
    let split = split(series.len(), horizon)?;
    let plans = plans(args, source, &split, horizon, models)?;
    let mut hear =
        |plan: &Plan, progress| work.fitting(&format!("{} (lookback {})", plan.model, plan.lookback), progress);
    let (mut pipeline, tried, best) = match &plans[..] {
        [plan] => {
            let _ = hear(plan, None);
            let mut watch = |progress| hear(plan, Some(progress));
            (Pipeline::fit(models, plan, series, &split, &mut watch)?, vec![], 0)
        }
        _ => {
            let chosen =
                choose(models, &plans, series, &split, targets, args.within.unwrap_or(Duration::MAX), &mut hear)?;
            (chosen.pipeline, chosen.tried, chosen.best)
        }
    };
    let lookback = pipeline.shape().lookback;
    if !args.level.is_empty() {
        work.say("calibrating intervals");
        pipeline.calibrate(series, split.targets(Part::Valid, lookback), &args.level)?;
    }
    work.say("learning from all rows");
    let name = format!("{}, from all rows", pipeline.model());
    let out_of_time = || args.within.is_some_and(|within| started.elapsed() >= within);
    let mut watch = |progress| match work.fitting(&name, Some(progress)) {
        ControlFlow::Continue(()) if out_of_time() => ControlFlow::Break(()),
        flow => flow,
    };
    let refitted = match pipeline.refit(series, 0..series.len(), &mut watch) {
        Err(Error::Interrupted) if progress::interrupted().is_continue() => false,
        done => done?,
    };
    Ok(Choice { pipeline, tried, best, refitted })
}

impl Choice {
    /// Lines that say what was chosen, and by how much it won.
    pub fn facts(&self, source: &Source) -> Vec<String> {
        let shape = self.pipeline.shape();
        let step = source.step.map_or("no timestamps".to_string(), |step| format!("step {step}"));
        let season = if source.season > 1 { format!(", season {}", source.season) } else { String::new() };
        let mut facts = vec![format!(
            "{}: {} rows of {} variates, {step}{season}",
            source.series.name(),
            source.series.len(),
            source.series.variates().len()
        )];
        let refitted = if self.refitted { ", fitted again on all rows" } else { ", not fitted on the last rows" };
        let model = format!("{} (lookback {}{refitted})", self.pipeline.model(), shape.lookback);
        facts.push(match self.won() {
            Some(won) => format!("{model}: {won}"),
            None => model,
        });
        let few = self.pipeline.intervals().map(|intervals| {
            let levels = intervals.levels().iter().zip(intervals.enough());
            levels.filter(|(_, enough)| !**enough).map(|(level, _)| format!("{level} %")).collect::<Vec<_>>()
        });
        if let Some(few) = few.filter(|few| !few.is_empty()) {
            facts.push(format!(
                "the rows are few for intervals of {}: they reach as far as the largest error that was seen",
                few.join(" and ")
            ));
        }
        facts
    }

    /// By how much the chosen one is better than the next and than the last season or value.
    fn won(&self) -> Option<String> {
        let error = |tried: &Tried| match tried.verdict {
            Verdict::Scored { mae, .. } => Some(mae),
            _ => None,
        };
        let mut scored: Vec<(f64, &Tried)> =
            self.tried.iter().filter_map(|tried| Some((error(tried)?, tried))).collect();
        scored.sort_by(|one, other| one.0.total_cmp(&other.0));
        let (best, _) = scored.first()?;
        let than = |(other, tried): &(f64, &Tried)| {
            let below = match *other > 0.0 {
                true => format!("{:.1} % below", 100.0 * (1.0 - best / other)),
                false => "the same as".into(),
            };
            format!("{below} {} (lookback {})", tried.plan.model, tried.plan.lookback)
        };
        let count = scored.len();
        let next = scored.get(1).map(than).unwrap_or_default();
        let naive = scored.iter().skip(2).find(|(_, tried)| ["seasonal-naive", "repeat"].contains(&&*tried.plan.model));
        let naive = naive.map(|found| format!(", {}", than(found))).unwrap_or_default();
        Some(format!("best of {count} on the last rows, its mean absolute error {next}{naive}"))
    }

    /// A line for each candidate.
    pub fn table(&self) -> Vec<String> {
        let line = |(place, tried): (usize, &Tried)| {
            let verdict = match &tried.verdict {
                Verdict::Scored { mse, mae } => format!("MAE {mae:.4}  MSE {mse:.4}"),
                Verdict::TooSlow => "no time (--within)".into(),
                Verdict::Failed(why) => format!("cannot be fitted: {why}"),
            };
            let mark = if place == self.best { '*' } else { ' ' };
            let Plan { model, lookback, .. } = &tried.plan;
            format!("{mark} {model:<16} lookback {lookback:<5} {:>7.2} s  {verdict}", tried.seconds)
        };
        self.tried.iter().enumerate().map(line).collect()
    }
}

/// Names that are no variates are an error that suggests a near one.
pub fn known(targets: &[String], source: &Source) -> crate::Result<()> {
    let variates = source.series.variates();
    match targets.iter().find(|target| !variates.contains(target)) {
        Some(target) => Err(Error::unknown("column", target, variates.iter().map(String::as_str))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enough_rows_choose_and_more_are_learnt_from() -> anyhow::Result<()> {
        let parts = |rows, horizon| split(rows, horizon).map(|split| (split.train.len(), split.valid.len()));
        assert_eq!(parts(1000, 24)?, (800, 200));
        assert_eq!(parts(144, 24)?, (101, 43));
        assert_eq!(parts(60, 24)?, (30, 30));
        assert!(parts(48, 24).is_err() && parts(100, 0).is_err() && parts(0, 1).is_err());
        let error = split(48, 24).unwrap_err().to_string();
        assert!(error.contains("at most 23"), "{error}");
        split(48, 23)?;
        Ok(())
    }

    #[test]
    fn a_lookback_leaves_windows_to_learn_from() {
        assert_eq!(lookbacks(8000, 24, 24), [48, 144]);
        assert_eq!(lookbacks(101, 24, 12), [24, 38]);
        assert_eq!(lookbacks(30, 24, 12), [3, 3]);
        assert_eq!(lookbacks(2, 1, 1), [1, 1]);
    }
}
