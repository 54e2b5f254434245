//! A part of a suite, for one of several machines or jobs.

use std::{fmt, str::FromStr};

use super::Task;
use crate::{
    Error, Result,
    data::Catalogue,
    forecaster::{Params, Registry},
};

/// One of so many parts of a suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// From 0.
    index: usize,
    count: usize,
}

/// The variables in which engines tell a job of an array its number, the first of all numbers (a variable or the
/// number itself), and how many there are.
const ARRAYS: [(&str, First, &str); 2] = [
    ("SLURM_ARRAY_TASK_ID", First::Variable("SLURM_ARRAY_TASK_MIN"), "SLURM_ARRAY_TASK_COUNT"),
    ("AWS_BATCH_JOB_ARRAY_INDEX", First::Number(0), "AWS_BATCH_JOB_ARRAY_SIZE"),
];

#[derive(Clone, Copy)]
enum First {
    Variable(&'static str),
    Number(usize),
}

impl Shard {
    /// The part of the job of an array that this program is, by the variables of Slurm or AWS Batch.
    ///
    /// # Errors
    /// If it is none, or they are no numbers of an array without gaps.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let number = |name: &str| -> Result<usize> {
            let text = variable(name).ok_or_else(|| Error::other(format!("{name} is not set")))?;
            text.parse().map_err(|_| Error::other(format!("{name} is {text:?}, not a number")))
        };
        let Some((index, first, count)) = ARRAYS.iter().find(|(index, ..)| variable(index).is_some()) else {
            let names = ARRAYS.map(|(index, ..)| index).join(", ");
            return Err(Error::other(format!("no job of an array (of {names} none is set): give --shard 1/4")));
        };
        let first = match first {
            First::Variable(name) => number(name)?,
            First::Number(first) => *first,
        };
        let (index, count) = (number(index)?, number(count)?);
        index.checked_sub(first).and_then(|index| Self::new(index, count)).ok_or_else(|| {
            Error::other(format!("job {index} of an array of {count} from {first} on: number the jobs without gaps"))
        })
    }

    fn new(index: usize, count: usize) -> Option<Self> {
        (index < count).then_some(Self { index, count })
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
    values * number(&params, "/training/epochs") * number(&params, "/network/d_model")
}

/// A number among the params; 1 where it is not.
fn number(params: &Params, path: &str) -> f64 {
    let value = serde_json::to_value(params).unwrap_or_default();
    value.pointer(path).and_then(serde_json::Value::as_f64).unwrap_or(1.0)
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
        for wrong in ["0/4", "5/4", "1", "a/b", "1/0", "-1/2", ""] {
            assert!(wrong.parse::<Shard>().unwrap_err().contains("is no part"), "{wrong}");
        }
    }

    #[test]
    fn jobs_of_an_array_know_their_part() {
        let part = |variables: &[(&str, &str)]| {
            let variables: BTreeMap<&str, &str> = variables.iter().copied().collect();
            Shard::from_environment(|name| variables.get(name).map(ToString::to_string))
        };
        let slurm = |id| [("SLURM_ARRAY_TASK_ID", id), ("SLURM_ARRAY_TASK_MIN", "1"), ("SLURM_ARRAY_TASK_COUNT", "4")];
        assert_eq!(part(&slurm("3")).unwrap().to_string(), "3/4");
        assert_eq!(
            part(&[("AWS_BATCH_JOB_ARRAY_INDEX", "0"), ("AWS_BATCH_JOB_ARRAY_SIZE", "2")]).unwrap().to_string(),
            "1/2"
        );
        assert!(part(&slurm("9")).unwrap_err().to_string().contains("without gaps"));
        assert!(part(&slurm("x")).unwrap_err().to_string().contains("not a number"));
        assert!(part(&slurm("3")[..2]).unwrap_err().to_string().contains("SLURM_ARRAY_TASK_COUNT is not set"));
        assert!(part(&[]).unwrap_err().to_string().contains("--shard 1/4"));
    }
}
