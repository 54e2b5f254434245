//! Choosing among forecasters by the validation rows, in a given time.

use std::{
    cell::Cell,
    ops::ControlFlow,
    time::{Duration, Instant},
};

use super::{VariateScores, evaluate_pipeline};
use crate::{
    Error, Result,
    data::Series,
    forecaster::{FitProgress, Pipeline, Plan, Registry},
    windows::{Part, Split},
};

/// What was chosen, and from what.
pub struct Chosen {
    /// The best of them, fitted on the training rows.
    pub pipeline: Pipeline,
    /// Its place among the candidates.
    pub best: usize,
    /// One for each candidate, in their order.
    pub tried: Vec<Tried>,
}

/// A candidate and what became of it.
#[derive(Clone, Debug)]
pub struct Tried {
    pub plan: Plan,
    pub verdict: Verdict,
    pub seconds: f64,
}

/// What became of a candidate.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Its errors over all validation windows, in scaled units.
    Scored { mse: f64, mae: f64 },
    /// It would have taken longer than there was time.
    TooSlow,
    /// It could not be fitted: why.
    Failed(String),
}

/// Fits each of `plans` on the training rows of `split`, in their order and as long as there is time, and keeps the
/// one with the smallest mean absolute error over the validation windows; of equal ones the first. Only the variates
/// `targets` count, or all where there are none.
///
/// Time counts from the first one on; the first is always fitted to its end. `hear` is told which candidate is at
/// work and how far it has come, and may stop everything.
///
/// # Errors
/// If none can be fitted (the reason of the first is given), or `hear` asks to stop ([`Error::Interrupted`]).
pub fn choose(
    models: &Registry,
    plans: &[Plan],
    series: &Series,
    split: &Split,
    targets: &[String],
    within: Duration,
    hear: &mut dyn FnMut(&Plan, Option<FitProgress>) -> ControlFlow<()>,
) -> Result<Chosen> {
    let start = Instant::now();
    let mut best: Option<(f64, usize, Pipeline)> = None;
    let mut tried: Vec<Tried> = Vec::with_capacity(plans.len());
    for (place, plan) in plans.iter().enumerate() {
        let out_of_time = || best.is_some() && start.elapsed() >= within;
        let from = Instant::now();
        let stopped = Cell::new(false);
        let verdict = if out_of_time() {
            Verdict::TooSlow
        } else {
            if hear(plan, None).is_break() {
                return Err(Error::Interrupted);
            }
            let mut watch = |progress: FitProgress| {
                stopped.set(hear(plan, Some(progress)).is_break());
                if stopped.get() || out_of_time() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            let fitted = Pipeline::fit(models, plan, series, split, &mut watch).and_then(|pipeline| {
                let rows = split.targets(Part::Valid, plan.lookback);
                let mut on = |_| if out_of_time() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
                let scores = evaluate_pipeline(&pipeline, series, rows, split.train.clone(), &mut on)?.scores;
                Ok((pipeline, scores))
            });
            match fitted {
                Ok((pipeline, scores)) => {
                    let counted = |scores: &&VariateScores| targets.is_empty() || targets.contains(&scores.name);
                    let each: Vec<&VariateScores> = scores.per_variate.iter().filter(counted).collect();
                    let mean = |error: fn(&VariateScores) -> f64| {
                        each.iter().map(|scores| error(scores)).sum::<f64>() / each.len() as f64
                    };
                    let (mse, mae) = (mean(|scores| scores.mse), mean(|scores| scores.mae));
                    if best.as_ref().is_none_or(|(error, ..)| mae < *error) {
                        best = Some((mae, place, pipeline));
                    }
                    Verdict::Scored { mse, mae }
                }
                Err(Error::Interrupted) if stopped.get() => return Err(Error::Interrupted),
                Err(Error::Interrupted) => Verdict::TooSlow,
                Err(error) => Verdict::Failed(error.to_string()),
            }
        };
        tried.push(Tried { plan: plan.clone(), verdict, seconds: from.elapsed().as_secs_f64() });
    }
    match best {
        Some((_, best, pipeline)) => Ok(Chosen { pipeline, best, tried }),
        None => Err(Error::other(match tried.into_iter().next() {
            Some(Tried { plan, verdict: Verdict::Failed(why), .. }) => {
                format!("no model can be fitted; {}: {why}", plan.model)
            }
            _ => "there is no model to choose from".into(),
        })),
    }
}
