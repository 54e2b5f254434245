//! Which forecasters are better than which, over all rows of a table, and which cannot be told apart.
//!
//! Average ranks with the test of Friedman (1937) over all, and for each pair the signed-rank test of Wilcoxon
//! (1945) with the correction of Holm (1979), as Benavoli et al. (JMLR 2016) advise in place of Nemenyi's, whose
//! verdict on a pair depends on who else is in the table.

use std::ops::Range;

use serde::Serialize;
use statrs::distribution::{ChiSquared, ContinuousCDF};

use super::Scoreboard;

/// What is called significant.
pub const LEVEL: f64 = 0.05;

/// With fewer rows no signed-rank test can fall below [`LEVEL`]: 2 / 2⁵ = 0.0625.
const LEAST_ROWS: usize = 6;

/// The ranks of the models of a table, by their first metric.
#[derive(Clone, Debug, Serialize)]
pub struct Ranking {
    /// Rows that all of the models have a score in.
    pub rows: usize,
    /// From the best average rank to the worst.
    pub models: Vec<Ranked>,
    /// Friedman's χ² with its correction for ties, and the probability of one as large if no model were better
    /// than another.
    pub friedman: f64,
    pub friedman_p: f64,
    /// Every pair, the better average rank first.
    pub pairs: Vec<Pair>,
    /// Neighbours by rank no two of which are told apart, as long as can be; places in `models`.
    pub groups: Vec<Range<usize>>,
}

/// A model and how it ranks.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ranked {
    pub name: String,
    pub average_rank: f64,
    /// Rows in which no other is better.
    pub best: usize,
}

/// Two models side by side.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pair {
    pub one: String,
    pub other: String,
    /// Rows in which `one` is better, equal to the printed digit, and worse.
    pub won: usize,
    pub tied: usize,
    pub lost: usize,
    /// Of Wilcoxon's test, two-sided.
    pub p: f64,
    /// With Holm's correction for so many pairs.
    pub p_holm: f64,
}

impl Pair {
    /// Whether chance alone is not a likely reason.
    pub fn told_apart(&self) -> bool {
        self.p_holm < LEVEL
    }
}

impl Ranking {
    /// The ranking of `board`, each row of one horizon a task. Models that lack more than half of the rows are
    /// left out, then rows in which one of the others is missing. `None` if fewer than two models or six rows
    /// are left.
    pub fn of(board: &Scoreboard) -> Option<Self> {
        let scale = 10f64.powi(board.decimals as i32);
        // What reads the same is equal.
        let printed = |score: f64| (score * scale).round();
        let rows = board.rows.iter().filter(|row| row.horizon.is_some()).map(|row| {
            row.cells.iter().map(|cell| cell.as_ref().and_then(|cell| cell.scores[0]).map(printed)).collect()
        });
        let rows: Vec<Vec<Option<f64>>> = rows.collect();
        let here = |model: usize| rows.iter().filter(|row| row[model].is_some()).count();
        let kept: Vec<usize> = (0..board.models.len()).filter(|model| 2 * here(*model) >= rows.len()).collect();
        let scores = rows.iter().filter_map(|row| kept.iter().map(|model| row[*model]).collect::<Option<Vec<f64>>>());
        let scores: Vec<Vec<f64>> = scores.collect();
        if kept.len() < 2 || scores.len() < LEAST_ROWS {
            return None;
        }
        let names: Vec<&String> = kept.iter().map(|model| &board.models[*model]).collect();
        Some(Self::of_scores(&names, &scores))
    }

    /// Of the scores `[row][model]`, smaller being better.
    fn of_scores(names: &[&String], scores: &[Vec<f64>]) -> Self {
        let ranks: Vec<Vec<f64>> = scores.iter().map(|row| mid_ranks(row)).collect();
        let count = scores.len() as f64;
        let average = |model: usize| ranks.iter().map(|row| row[model]).sum::<f64>() / count;
        let averages: Vec<f64> = (0..names.len()).map(average).collect();
        let mut order: Vec<usize> = (0..names.len()).collect();
        order.sort_by(|one, other| averages[*one].total_cmp(&averages[*other]));
        let best = |model: usize| scores.iter().filter(|row| row.iter().all(|other| row[model] <= *other)).count();
        let models = order.iter().map(|model| Ranked {
            name: names[*model].clone(),
            average_rank: averages[*model],
            best: best(*model),
        });
        let models: Vec<Ranked> = models.collect();

        let mut pairs = Vec::new();
        for (place, one) in order.iter().enumerate() {
            for other in &order[place + 1..] {
                let differences: Vec<f64> = scores.iter().map(|row| row[*other] - row[*one]).collect();
                let count = |test: fn(&f64) -> bool| differences.iter().filter(|difference| test(difference)).count();
                pairs.push(Pair {
                    one: names[*one].clone(),
                    other: names[*other].clone(),
                    won: count(|difference| *difference > 0.0),
                    tied: count(|difference| *difference == 0.0),
                    lost: count(|difference| *difference < 0.0),
                    p: signed_rank(&differences),
                    p_holm: 1.0,
                });
            }
        }
        correct(&mut pairs);
        let (friedman, friedman_p) = friedman(&ranks);
        let groups = groups(&models, &pairs);
        Self { rows: scores.len(), models, friedman, friedman_p, pairs, groups }
    }
}

/// Ranks from 1; equal values share the mean of theirs.
fn mid_ranks(values: &[f64]) -> Vec<f64> {
    let rank = |value: &f64| {
        let below = values.iter().filter(|other| *other < value).count();
        let equal = values.iter().filter(|other| *other == value).count();
        below as f64 + (equal + 1) as f64 / 2.0
    };
    values.iter().map(rank).collect()
}

/// The statistic of Friedman over `[row][model]` with the correction for ties, and its probability.
fn friedman(ranks: &[Vec<f64>]) -> (f64, f64) {
    let (rows, models) = (ranks.len() as f64, ranks[0].len() as f64);
    let middle = (models + 1.0) / 2.0;
    let sums = (0..ranks[0].len()).map(|model| ranks.iter().map(|row| row[model] - middle).sum::<f64>());
    let between: f64 = sums.map(|sum| sum * sum).sum();
    let within: f64 = ranks.iter().flatten().map(|rank| (rank - middle) * (rank - middle)).sum();
    if within == 0.0 {
        // All are equal everywhere.
        return (0.0, 1.0);
    }
    let statistic = (models - 1.0) * between / within;
    debug_assert!(statistic <= rows * (models - 1.0) * (1.0 + 1e-9));
    let chi = ChiSquared::new(models - 1.0).expect("there are at least two models");
    (statistic, chi.sf(statistic))
}

/// The two-sided probability of Wilcoxon's signed-rank test, exact whatever the ties: every sign being as likely
/// as its opposite, how often are the sums of ranks as far apart as these. Differences of 0 are left out.
fn signed_rank(differences: &[f64]) -> f64 {
    let differences: Vec<f64> = differences.iter().copied().filter(|difference| *difference != 0.0).collect();
    let sizes: Vec<f64> = differences.iter().map(|difference| difference.abs()).collect();
    // Twice a shared rank is whole.
    let ranks: Vec<usize> = mid_ranks(&sizes).iter().map(|rank| (2.0 * rank) as usize).collect();
    let total: usize = ranks.iter().sum();
    let positive: usize = ranks.iter().zip(&differences).filter(|(_, sign)| **sign > 0.0).map(|(rank, _)| rank).sum();
    // The probability of each sum of the positive ranks.
    let mut chances = vec![0.0; total + 1];
    chances[0] = 1.0;
    for rank in &ranks {
        for sum in (0..=total).rev() {
            let with = if sum >= *rank { chances[sum - rank] } else { 0.0 };
            chances[sum] = 0.5 * (chances[sum] + with);
        }
    }
    let smaller = positive.min(total - positive);
    (2.0 * chances[..=smaller].iter().sum::<f64>()).min(1.0)
}

/// Holm's correction of all p.
fn correct(pairs: &mut [Pair]) {
    let mut order: Vec<usize> = (0..pairs.len()).collect();
    order.sort_by(|one, other| pairs[*one].p.total_cmp(&pairs[*other].p));
    let mut largest = 0.0f64;
    for (place, pair) in order.iter().enumerate() {
        largest = largest.max(pairs[*pair].p * (pairs.len() - place) as f64).min(1.0);
        pairs[*pair].p_holm = largest;
    }
}

fn groups(models: &[Ranked], pairs: &[Pair]) -> Vec<Range<usize>> {
    let apart = |one: usize, other: usize| {
        let (one, other) = (&models[one].name, &models[other].name);
        pairs.iter().any(|pair| pair.one == *one && pair.other == *other && pair.told_apart())
    };
    let mut groups: Vec<Range<usize>> = Vec::new();
    for first in 0..models.len() {
        let fits = |last: &usize| (first..*last).all(|one| (one + 1..=*last).all(|other| !apart(one, other)));
        let last = (first..models.len()).take_while(fits).last().unwrap_or(first);
        let within_another = groups.iter().any(|group| group.contains(&last));
        if last > first && !within_another {
            groups.push(first..last + 1);
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(left: f64, right: f64) -> bool {
        (left - right).abs() < 1e-9
    }

    #[test]
    fn the_signed_rank_test_is_that_of_the_tables() {
        // All of one sign: 2 / 2ⁿ.
        assert!(close(signed_rank(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), 2.0 / 64.0));
        assert!(close(signed_rank(&[-1.0, -2.0, -3.0]), 0.25));
        // W = 1 of n = 6: 2 (1 + 1) / 64.
        assert!(close(signed_rank(&[-1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), 4.0 / 64.0));
        // Of equal sizes each has rank 1.5: the sums are 0, 1.5, 1.5 and 3.
        assert!(close(signed_rank(&[1.0, 1.0]), 0.5));
        assert!(close(signed_rank(&[1.0, -1.0]), 1.0));
        assert!(close(signed_rank(&[0.0, 0.0]), 1.0));
    }

    #[test]
    fn friedman_is_that_of_a_worked_example() {
        // Four rows, three models, always in this order: χ² = n (k − 1) = 8, p = e⁻⁴.
        let ranks = vec![vec![1.0, 2.0, 3.0]; 4];
        let (statistic, p) = friedman(&ranks);
        assert!(close(statistic, 8.0) && close(p, (-4f64).exp()), "{statistic} {p}");
        assert_eq!(friedman(&vec![vec![1.5, 1.5]; 3]), (0.0, 1.0));
    }

    #[test]
    fn holm_corrects_in_order() {
        let pair = |p| Pair { one: String::new(), other: String::new(), won: 0, tied: 0, lost: 0, p, p_holm: 0.0 };
        let mut pairs = [0.04, 0.01, 0.03].map(pair);
        correct(&mut pairs);
        assert!(close(pairs[1].p_holm, 0.03) && close(pairs[2].p_holm, 0.06) && close(pairs[0].p_holm, 0.06));
    }

    #[test]
    fn models_that_are_alike_are_a_group_and_a_worse_one_is_told_apart() {
        let names = ["worse", "one", "other"].map(String::from);
        let row = |index: usize| vec![900.0 + index as f64, 300.0 + (index % 2) as f64, 301.0 - (index % 2) as f64];
        let ranking = Ranking::of_scores(&names.iter().collect::<Vec<_>>(), &(0..12).map(row).collect::<Vec<_>>());
        assert_eq!(ranking.models[2].name, "worse");
        assert!(close(ranking.models[2].average_rank, 3.0));
        assert_eq!(ranking.groups, [0..2]);
        assert!(ranking.friedman_p < 1e-3);
        assert_eq!((ranking.pairs[0].won, ranking.pairs[0].lost), (6, 6));
        assert!(ranking.pairs[1].told_apart() && ranking.pairs[2].told_apart());
        assert_eq!(ranking.models.iter().map(|model| model.best).sum::<usize>(), 12);
    }
}
