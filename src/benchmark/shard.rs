//! A part of a suite, for one of several machines or jobs.

use std::{fmt, str::FromStr};

use super::Task;
use crate::{Error, Result, data::Catalogue, forecaster::Registry};

/// One of so many parts of a suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// From 0.
    index: usize,
    count: usize,
}

/// The variable with the number of parts, and the one with the number of the first job, for engines that do not
/// tell them and for a job that is submitted again alone. Where they are set, they win.
pub const SHARDS: &str = "LONGCAST_SHARDS";
/// See [`SHARDS`].
pub const FIRST_INDEX: &str = "LONGCAST_FIRST_INDEX";

/// How an engine tells a job of an array its part.
struct Engine {
    name: &'static str,
    /// The variable with the number of the job.
    index: &'static str,
    /// The one with the first of all numbers; without it they begin with 0.
    first: Option<&'static str>,
    /// The one with how many there are.
    count: Option<&'static str>,
}

const ENGINES: [Engine; 5] = [
    Engine {
        name: "Slurm",
        index: "SLURM_ARRAY_TASK_ID",
        first: Some("SLURM_ARRAY_TASK_MIN"),
        count: Some("SLURM_ARRAY_TASK_COUNT"),
    },
    Engine {
        name: "AWS Batch",
        index: "AWS_BATCH_JOB_ARRAY_INDEX",
        first: None,
        count: Some("AWS_BATCH_JOB_ARRAY_SIZE"),
    },
    Engine { name: "Kubernetes", index: "JOB_COMPLETION_INDEX", first: None, count: None },
    Engine { name: "PBS", index: "PBS_ARRAY_INDEX", first: None, count: None },
    Engine { name: "Torque", index: "PBS_ARRAYID", first: None, count: None },
];

impl Shard {
    /// The part of the job of an array that this program is, by the variables of Slurm, AWS Batch, Kubernetes, PBS
    /// or Torque, and by [`SHARDS`] and [`FIRST_INDEX`], which win.
    ///
    /// # Errors
    /// If it is none, or they do not say which of how many.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let told = |name: &str| -> Result<Option<usize>> {
            let number =
                |text: String| text.parse().map_err(|_| Error::other(format!("{name} is {text:?}, no number")));
            variable(name).map(number).transpose()
        };
        let engine = ENGINES.iter().find(|engine| variable(engine.index).is_some()).ok_or_else(|| {
            let names = ENGINES.map(|engine| engine.index).join(", ");
            Error::other(format!("no job of an array (of {names} none is set): give --shard 1/4"))
        })?;
        let index = told(engine.index)?.ok_or_else(|| Error::other(format!("{} is not set", engine.index)))?;
        let counted = engine.count.map(told).transpose()?.flatten();
        let count = told(SHARDS)?.or(counted).ok_or_else(|| {
            let other = engine.count.map(|name| format!("{name} is not set: ")).unwrap_or_default();
            Error::other(format!("{other}{} does not say how many jobs there are: set {SHARDS}", engine.name))
        })?;
        let first = match (told(FIRST_INDEX)?, engine.first) {
            (Some(first), _) => first,
            (None, None) => 0,
            (None, Some(name)) => {
                let first = told(name)?.ok_or_else(|| Error::other(format!("{name} is not set")))?;
                // Jobs that are submitted again are an array of their own, which begins anywhere.
                if first > 1 || counted != Some(count) {
                    let of = counted.map_or_else(String::new, |counted| format!(" of {counted} jobs"));
                    return Err(Error::other(format!(
                        "an array{of} from {first} on may be a part of one: set {SHARDS} to the number of all jobs and \
                         {FIRST_INDEX} to the first of their numbers"
                    )));
                }
                first
            }
        };
        index.checked_sub(first).and_then(|index| Self::new(index, count)).ok_or_else(|| {
            Error::other(format!(
                "job {index} of an array of {count} from {first} on: number the jobs without gaps, and set \
                 {FIRST_INDEX} to the first number"
            ))
        })
    }

    fn new(index: usize, count: usize) -> Option<Self> {
        /// More than any engine has.
        const MOST: usize = 100_000;
        (index < count && count <= MOST).then_some(Self { index, count })
    }

    /// The tasks of this part, in the order of all. Whoever asks for any part finds the same parts.
    ///
    /// The costliest task goes first, each to the part that has least to do so far.
    pub fn of(self, tasks: Vec<Task>, cost: impl Fn(&Task) -> f64) -> Vec<Task> {
        let costs: Vec<f64> = tasks.iter().map(cost).collect();
        let mut order: Vec<usize> = (0..tasks.len()).collect();
        order.sort_by(|one, other| costs[*other].total_cmp(&costs[*one]).then(one.cmp(other)));
        let mut loads = vec![0.0f64; self.count];
        let mut mine = vec![false; tasks.len()];
        for task in order {
            // Of equal ones the first.
            let lightest = (0..self.count).min_by(|one, other| loads[*one].total_cmp(&loads[*other]));
            let lightest = lightest.expect("there is at least one part");
            loads[lightest] += costs[task];
            mine[task] = lightest == self.index;
        }
        tasks.into_iter().zip(mine).filter_map(|(task, mine)| mine.then_some(task)).collect()
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('/').and_then(|(index, count)| {
            let (index, count): (usize, usize) = (index.parse().ok()?, count.parse().ok()?);
            Self::new(index.checked_sub(1)?, count)
        });
        parsed.ok_or_else(|| format!("{text:?} is no part, such as 2/4, the second of four"))
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index + 1, self.count)
    }
}

/// What a task takes, roughly and relative to others: values its windows hold, times epochs and width where its
/// params name them.
pub fn estimated_cost(task: &Task, models: &Registry, catalogue: &Catalogue) -> f64 {
    const UNKNOWN: usize = 10_000;
    let (rows, variates) = match catalogue.dataset(&task.dataset) {
        Ok(dataset) => (dataset.rows.unwrap_or(UNKNOWN), dataset.variates.unwrap_or(1)),
        Err(_) => (UNKNOWN, 1),
    };
    let preset = models.preset(&task.model, task.preset.as_deref()).ok().flatten();
    let lower = preset.map(|preset| preset.params(&task.dataset, task.horizon)).unwrap_or_default();
    let params = models.resolve(&task.model, &lower.overlaid(&task.params)).unwrap_or_default();
    let values = (rows * variates * (task.lookback + task.horizon)) as f64;
    let params = serde_json::to_value(params).unwrap_or_default();
    // 1 where the model has no such number.
    let number = |path: &str| params.pointer(path).and_then(serde_json::Value::as_f64).unwrap_or(1.0);
    values * number("/training/epochs") * number("/network/d_model")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn tasks(count: usize) -> Vec<Task> {
        (0..count).map(|index| Task::named("Synthetic", "repeat", 1 + index * index, 1)).collect()
    }

    #[test]
    fn every_task_is_in_one_part_and_parts_are_of_like_cost() {
        let cost = |task: &Task| task.lookback as f64;
        for count in [1, 2, 3, 7, 40] {
            let parts: Vec<Vec<Task>> =
                (0..count).map(|index| Shard::new(index, count).unwrap().of(tasks(30), cost)).collect();
            let mut all: Vec<usize> = parts.iter().flatten().map(|task| task.lookback).collect();
            all.sort_unstable();
            assert_eq!(all, tasks(30).iter().map(|task| task.lookback).collect::<Vec<_>>());
            assert!(parts.iter().all(|part| part.is_sorted_by_key(|task| task.lookback)));
            let loads = parts.iter().map(|part| part.iter().map(cost).sum::<f64>());
            let (least, most) = loads.fold((f64::MAX, 0.0f64), |(least, most), load| (least.min(load), most.max(load)));
            let costliest = tasks(30).iter().map(cost).fold(0.0, f64::max);
            assert!(most <= least + costliest, "{count}: {least} to {most}");
        }
    }

    #[test]
    fn a_part_is_written_from_1_on() {
        assert_eq!("2/4".parse(), Ok(Shard { index: 1, count: 4 }));
        assert_eq!("2/4".parse::<Shard>().unwrap().to_string(), "2/4");
        for wrong in ["0/4", "5/4", "1/18446744073709551615", "1", "a/b", "1/0", "-1/2", ""] {
            assert!(wrong.parse::<Shard>().unwrap_err().contains("is no part"), "{wrong}");
        }
    }

    fn part(variables: &[(&str, &str)]) -> Result<Shard> {
        let variables: BTreeMap<&str, &str> = variables.iter().copied().collect();
        Shard::from_environment(|name| variables.get(name).map(ToString::to_string))
    }

    #[test]
    fn jobs_of_an_array_know_their_part() {
        let slurm = |id| [("SLURM_ARRAY_TASK_ID", id), ("SLURM_ARRAY_TASK_MIN", "1"), ("SLURM_ARRAY_TASK_COUNT", "4")];
        assert_eq!(part(&slurm("3")).unwrap().to_string(), "3/4");
        assert_eq!(
            part(&[("AWS_BATCH_JOB_ARRAY_INDEX", "0"), ("AWS_BATCH_JOB_ARRAY_SIZE", "2")]).unwrap().to_string(),
            "1/2"
        );
        assert!(part(&slurm("9")).unwrap_err().to_string().contains("without gaps"));
        assert!(part(&slurm("x")).unwrap_err().to_string().contains("no number"));
        assert!(part(&slurm("3")[..2]).unwrap_err().to_string().contains("SLURM_ARRAY_TASK_COUNT is not set"));
        assert!(part(&[]).unwrap_err().to_string().contains("--shard 1/4"));
    }

    #[test]
    fn engines_that_do_not_count_are_told_how_many_parts_there_are() {
        for index in ["JOB_COMPLETION_INDEX", "PBS_ARRAY_INDEX", "PBS_ARRAYID"] {
            assert_eq!(part(&[(index, "0"), (SHARDS, "4")]).unwrap().to_string(), "1/4", "{index}");
            assert_eq!(part(&[(index, "4"), (SHARDS, "4"), (FIRST_INDEX, "1")]).unwrap().to_string(), "4/4", "{index}");
            assert!(part(&[(index, "0")]).unwrap_err().to_string().contains("set LONGCAST_SHARDS"), "{index}");
            let counted_from_1 = part(&[(index, "4"), (SHARDS, "4")]).unwrap_err().to_string();
            assert!(counted_from_1.contains("set LONGCAST_FIRST_INDEX"), "{counted_from_1}");
            assert!(part(&[(index, "0"), (SHARDS, "four")]).unwrap_err().to_string().contains("no number"), "{index}");
        }
    }

    #[test]
    fn a_job_submitted_again_alone_keeps_its_part() {
        let alone = [("SLURM_ARRAY_TASK_ID", "3"), ("SLURM_ARRAY_TASK_MIN", "3"), ("SLURM_ARRAY_TASK_COUNT", "1")];
        let with = |more: &[(&'static str, &'static str)]| part(&[&alone, more].concat());
        assert_eq!(with(&[(SHARDS, "4"), (FIRST_INDEX, "0")]).unwrap().to_string(), "4/4");
        assert_eq!(with(&[(SHARDS, "4"), (FIRST_INDEX, "1")]).unwrap().to_string(), "3/4");
        // What nobody told is not guessed.
        for untold in [&[][..], &[(SHARDS, "4")]] {
            assert!(with(untold).unwrap_err().to_string().contains("may be a part of one"), "{untold:?}");
        }
        let first = [("SLURM_ARRAY_TASK_ID", "0"), ("SLURM_ARRAY_TASK_MIN", "0"), ("SLURM_ARRAY_TASK_COUNT", "1")];
        assert!(part(&[&first[..], &[(SHARDS, "4")]].concat()).is_err());
    }
}
