//! The time axis: its step, how it continues, and the calendar features of its timestamps.

use std::{collections::BTreeMap, fmt, str::FromStr};

use chrono::{Datelike, Months, NaiveDateTime, TimeDelta, Timelike};
use ndarray::Array2;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The distance from one row to the next: a fixed time, business days, or whole months.
///
/// Written `100ms`, `30s`, `15min`, `1h`, `1d`, `1b` (business days), `1w`, `1mo`, `1q`, `1y`, `1me` (from the end of
/// a month to the end of the next).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Step {
    /// A fixed number of microseconds.
    Micros(i64),
    /// From Monday to Friday; holidays are not known.
    BusinessDay,
    /// A number of calendar months, however long they are.
    Months(u32),
    /// The same from the last day of a month to the last day of another.
    MonthEnds(u32),
}

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const WEEK: i64 = 7 * DAY;

/// How fixed steps are written, the longest first.
const UNITS: [(&str, i64); 7] =
    [("w", WEEK), ("d", DAY), ("h", HOUR), ("min", MINUTE), ("s", SECOND), ("ms", 1000), ("us", 1)];

impl Step {
    /// The step that most neighbouring rows have; `None` with fewer than two rows.
    ///
    /// Days are business days where weekends lie between rows, and hardly a row on one. Whole months win when every
    /// row lies on the same day of the month and time of day, or each on the last day of its month. A step is no whole
    /// number of seconds only where half of all rows are that far apart: otherwise clocks were not quite on time.
    pub fn detect(timestamps: &[NaiveDateTime]) -> Option<Self> {
        let micros = |pair: &[NaiveDateTime]| (pair[1] - pair[0]).num_microseconds().unwrap_or(i64::MAX);
        let (exact, count) = commonest(timestamps.windows(2).map(micros))?;
        let whole = |micros: i64| (micros.saturating_add(SECOND / 2) / SECOND).saturating_mul(SECOND);
        let step = match exact % SECOND == 0 || 2 * count >= timestamps.len() - 1 {
            true => exact,
            false => commonest(timestamps.windows(2).map(|pair| whole(micros(pair)))).map_or(exact, |(step, _)| step),
        };
        if step >= 28 * DAY {
            let months = |pair: &[NaiveDateTime]| month_number(&pair[1]) - month_number(&pair[0]);
            let months = || u32::try_from(commonest(timestamps.windows(2).map(months))?.0).ok();
            if same_day_of_month(timestamps) {
                return months().map(Self::Months);
            }
            if timestamps.iter().all(is_month_end) {
                return months().map(Self::MonthEnds);
            }
        }
        if step == DAY && no_weekends(timestamps) {
            return Some(Self::BusinessDay);
        }
        Some(Self::Micros(step))
    }

    /// The timestamp `count` steps after `from`.
    ///
    /// Months are counted from `from` itself, so that the 31st stays the 31st where there is one.
    pub fn after(self, from: NaiveDateTime, count: usize) -> Option<NaiveDateTime> {
        let count = u32::try_from(count).ok()?;
        match self {
            Self::Micros(micros) => from.checked_add_signed(TimeDelta::microseconds(micros.checked_mul(count.into())?)),
            Self::BusinessDay => {
                // From a weekend the first step leads to Monday: from the Friday before it.
                let since_monday = from.weekday().num_days_from_monday();
                let friday = from.checked_sub_signed(TimeDelta::days(since_monday.saturating_sub(4).into()))?;
                let ahead = friday.weekday().num_days_from_monday().checked_add(count)?;
                let days = i64::from(ahead) + 2 * i64::from(ahead / 5) - i64::from(since_monday.min(4));
                friday.checked_add_signed(TimeDelta::days(days))
            }
            Self::Months(months) => from.checked_add_months(Months::new(months.checked_mul(count)?)),
            Self::MonthEnds(months) => {
                let moved = from.with_day(1)?.checked_add_months(Months::new(months.checked_mul(count)?))?;
                moved.checked_add_months(Months::new(1))?.checked_sub_signed(TimeDelta::days(1))
            }
        }
    }

    /// Steps in the season one would look for first: the day for steps below it, the week for
    /// days and business days, the year for weeks, months and quarters; 1 where there is none.
    pub fn season(self) -> usize {
        let steps = match self {
            Self::Micros(micros) if micros < DAY && DAY % micros == 0 => DAY / micros,
            Self::Micros(DAY) => 7,
            Self::BusinessDay => 5,
            Self::Micros(WEEK) => 52,
            Self::Months(months) | Self::MonthEnds(months) if 12 % months == 0 => i64::from(12 / months),
            _ => 1,
        };
        usize::try_from(steps).unwrap_or(1)
    }
}

// Of every seven days two would lie on a weekend; one in fifty may be a slip. A few days show no weekend: daily
// data of a week that ends on a Friday is daily.
fn no_weekends(timestamps: &[NaiveDateTime]) -> bool {
    let weekday = |time: &NaiveDateTime| time.weekday().num_days_from_monday();
    let over_a_weekend = |pair: &[NaiveDateTime]| weekday(&pair[1]) < weekday(&pair[0]);
    let on_weekends = timestamps.iter().filter(|time| weekday(time) > 4).count();
    50 * on_weekends <= timestamps.len() && timestamps.windows(2).any(over_a_weekend)
}

/// The commonest of the steps that lead on, and how many are like it.
fn commonest(steps: impl Iterator<Item = i64>) -> Option<(i64, usize)> {
    let mut counts: BTreeMap<i64, usize> = BTreeMap::new();
    steps.filter(|step| *step > 0).for_each(|step| *counts.entry(step).or_default() += 1);
    counts.into_iter().max_by_key(|(_, count)| *count)
}

fn month_number(time: &NaiveDateTime) -> i64 {
    i64::from(time.year()) * 12 + i64::from(time.month())
}

fn same_day_of_month(timestamps: &[NaiveDateTime]) -> bool {
    timestamps.windows(2).all(|pair| pair[0].day() == pair[1].day() && pair[0].time() == pair[1].time())
}

fn is_month_end(time: &NaiveDateTime) -> bool {
    time.checked_add_signed(TimeDelta::days(1)).is_some_and(|next| next.month() != time.month())
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Months(months) if months % 12 == 0 => write!(f, "{}y", months / 12),
            Self::Months(months) if months % 3 == 0 => write!(f, "{}q", months / 3),
            Self::Months(months) => write!(f, "{months}mo"),
            Self::MonthEnds(months) => write!(f, "{months}me"),
            Self::BusinessDay => f.write_str("1b"),
            Self::Micros(micros) => {
                let (suffix, unit) = UNITS.into_iter().find(|(_, unit)| micros % unit == 0).unwrap_or(("us", 1));
                write!(f, "{}{suffix}", micros / unit)
            }
        }
    }
}

impl FromStr for Step {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let unreadable = || {
            Error::other(format!("'{text}' is not a step: write 100ms, 30s, 15min, 1h, 1d, 1b, 1w, 1mo, 1q, 1y or 1me"))
        };
        let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(unreadable)?;
        let (count, unit) = text.split_at(digits);
        let count: u32 = count.parse().ok().filter(|count| *count > 0).ok_or_else(unreadable)?;
        let months = |each: u32| count.checked_mul(each).map(Self::Months).ok_or_else(unreadable);
        match unit {
            "b" if count == 1 => Ok(Self::BusinessDay),
            "mo" => months(1),
            "me" => Ok(Self::MonthEnds(count)),
            "q" => months(3),
            "y" => months(12),
            unit => {
                let micros = UNITS.into_iter().find(|(suffix, _)| *suffix == unit).map(|(_, micros)| micros);
                let step = micros.and_then(|micros| micros.checked_mul(count.into()));
                step.map(Self::Micros).ok_or_else(unreadable)
            }
        }
    }
}

impl TryFrom<String> for Step {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Step> for String {
    fn from(step: Step) -> Self {
        step.to_string()
    }
}

/// Which calendar features a row has, each scaled to `[-0.5, 0.5]`.
///
/// The sets and formulas are those of GluonTS's `time_features_from_frequency_str`, which Informer
/// and all its successors use. Nearly all their scripts use [`Hourly`](Self::Hourly) for every data set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Calendar {
    /// No features.
    None,
    /// Minute of the hour, then those of hourly.
    Minutely,
    /// Hour of the day, day of the week, day of the month, day of the year.
    #[default]
    Hourly,
    /// Day of the week, day of the month, day of the year.
    Daily,
    /// Day of the month, ISO 8601 week of the year.
    Weekly,
    /// Month of the year.
    Monthly,
}

type Feature = fn(&NaiveDateTime) -> f64;

const MINUTE_OF_HOUR: Feature = |time| f64::from(time.minute()) / 59.0 - 0.5;
const HOUR_OF_DAY: Feature = |time| f64::from(time.hour()) / 23.0 - 0.5;
const DAY_OF_WEEK: Feature = |time| f64::from(time.weekday().num_days_from_monday()) / 6.0 - 0.5;
const DAY_OF_MONTH: Feature = |time| f64::from(time.day0()) / 30.0 - 0.5;
const DAY_OF_YEAR: Feature = |time| f64::from(time.ordinal0()) / 365.0 - 0.5;
const WEEK_OF_YEAR: Feature = |time| f64::from(time.iso_week().week0()) / 52.0 - 0.5;
const MONTH_OF_YEAR: Feature = |time| f64::from(time.month0()) / 11.0 - 0.5;

impl Calendar {
    /// That of rows which are `step` apart; hourly where that is not known.
    pub fn of(step: Option<Step>) -> Self {
        match step {
            Some(Step::Months(_) | Step::MonthEnds(_)) => Self::Monthly,
            Some(Step::Micros(WEEK..)) => Self::Weekly,
            Some(Step::Micros(DAY..) | Step::BusinessDay) => Self::Daily,
            Some(Step::Micros(HOUR..)) | None => Self::Hourly,
            Some(Step::Micros(_)) => Self::Minutely,
        }
    }

    /// That with so many features; no two have as many.
    pub fn with_features(count: usize) -> Option<Self> {
        let all = [Self::None, Self::Monthly, Self::Weekly, Self::Daily, Self::Hourly, Self::Minutely];
        all.into_iter().find(|calendar| calendar.list().len() == count)
    }

    fn list(self) -> &'static [Feature] {
        match self {
            Self::None => &[],
            Self::Minutely => &[MINUTE_OF_HOUR, HOUR_OF_DAY, DAY_OF_WEEK, DAY_OF_MONTH, DAY_OF_YEAR],
            Self::Hourly => &[HOUR_OF_DAY, DAY_OF_WEEK, DAY_OF_MONTH, DAY_OF_YEAR],
            Self::Daily => &[DAY_OF_WEEK, DAY_OF_MONTH, DAY_OF_YEAR],
            Self::Weekly => &[DAY_OF_MONTH, WEEK_OF_YEAR],
            Self::Monthly => &[MONTH_OF_YEAR],
        }
    }

    /// The features of each timestamp, `[time, features]`.
    pub fn features(self, timestamps: &[NaiveDateTime]) -> Array2<f32> {
        let list = self.list();
        Array2::from_shape_fn((timestamps.len(), list.len()), |(row, feature)| list[feature](&timestamps[row]) as f32)
    }
}

#[cfg(test)]
mod tests {
    use chrono::NaiveDate;

    use super::*;

    fn at(year: i32, month: u32, day: u32, hour: u32) -> NaiveDateTime {
        NaiveDate::from_ymd_opt(year, month, day).unwrap().and_hms_opt(hour, 0, 0).unwrap()
    }

    #[test]
    fn hourly_features_are_those_of_the_reference() {
        // A Friday, day 183 of a leap year.
        let features = Calendar::Hourly.features(&[at(2016, 7, 1, 0)]);
        let expected = [-0.5, 0.166_667, -0.5, -0.001_370];
        for (feature, expected) in features.iter().zip(expected) {
            assert!((feature - expected).abs() < 1e-6, "{feature} is not {expected}");
        }
    }

    #[test]
    fn a_calendar_is_told_by_how_many_features_it_has() {
        for count in 0..6 {
            assert_eq!(Calendar::with_features(count).map(|calendar| calendar.list().len()), Some(count));
        }
        assert_eq!(Calendar::with_features(6), None);
    }

    #[test]
    fn each_step_has_its_calendar() -> Result<()> {
        use Calendar::{Daily, Hourly, Minutely, Monthly, Weekly};
        let expected = [("15min", Minutely), ("1h", Hourly), ("6h", Hourly), ("1d", Daily), ("3d", Daily)];
        for (step, calendar) in expected.into_iter().chain([("1w", Weekly), ("1mo", Monthly), ("1y", Monthly)]) {
            assert_eq!(Calendar::of(Some(step.parse()?)), calendar, "{step}");
        }
        Ok(())
    }

    #[test]
    fn the_commonest_step_is_the_step() {
        let times = [at(2020, 1, 1, 0), at(2020, 1, 1, 1), at(2020, 1, 1, 2), at(2020, 1, 1, 5)];
        assert_eq!(Step::detect(&times), Some(Step::Micros(HOUR)));
    }

    #[test]
    fn months_of_different_length_are_months() {
        let times = [at(2020, 1, 1, 0), at(2020, 2, 1, 0), at(2020, 3, 1, 0)];
        assert_eq!(Step::detect(&times), Some(Step::Months(1)));
        let ends = [at(2020, 1, 31, 0), at(2020, 2, 29, 0), at(2020, 3, 31, 0)];
        assert_eq!(Step::detect(&ends), Some(Step::MonthEnds(1)));
    }

    #[test]
    fn the_same_day_of_each_month_stays_that_day() {
        let times = [at(2020, 12, 28, 0), at(2021, 1, 28, 0), at(2021, 2, 28, 0)];
        let step = Step::detect(&times).unwrap();
        assert_eq!((step, step.after(times[2], 1)), (Step::Months(1), Some(at(2021, 3, 28, 0))));
    }

    #[test]
    fn steps_below_a_second_are_told_from_clocks_that_are_not_on_time() {
        let after = |millis: i64| at(2020, 1, 1, 0) + TimeDelta::milliseconds(millis);
        assert_eq!(Step::detect(&[0, 100, 200, 300, 500].map(after)), Some(Step::Micros(100_000)));
        assert_eq!(Step::detect(&[0, 1500, 3000].map(after)), Some(Step::Micros(1_500_000)));
        assert_eq!(Step::detect(&[3, 1001, 1998, 3005, 4000].map(after)), Some(Step::Micros(SECOND)));
        assert_eq!(Step::Micros(100_000).after(after(900), 2), Some(after(1100)));
    }

    #[test]
    fn business_days_pass_over_weekends() {
        // Wednesday to Wednesday, with a holiday on the Monday.
        let times = [1, 2, 3, 7, 8].map(|day| at(2020, 1, day, 0));
        assert_eq!(Step::detect(&times), Some(Step::BusinessDay));
        assert_eq!(Step::detect(&times[..3]), Some(Step::Micros(DAY)));
        // Friday.
        let days = |count| Step::BusinessDay.after(at(2020, 1, 3, 16), count);
        assert_eq!(days(1), Some(at(2020, 1, 6, 16)));
        assert_eq!((days(5), days(6)), (Some(at(2020, 1, 10, 16)), Some(at(2020, 1, 13, 16))));
        for weekend in [4, 5] {
            assert_eq!(Step::BusinessDay.after(at(2020, 1, weekend, 0), 1), Some(at(2020, 1, 6, 0)));
        }
        assert_eq!(Step::BusinessDay.after(at(2020, 1, 1, 0), 3), Some(at(2020, 1, 6, 0)));
    }

    #[test]
    fn the_end_of_a_month_is_followed_by_the_end_of_a_month() {
        assert_eq!(Step::MonthEnds(1).after(at(2020, 2, 29, 0), 1), Some(at(2020, 3, 31, 0)));
        assert_eq!(Step::MonthEnds(12).after(at(2019, 2, 28, 0), 1), Some(at(2020, 2, 29, 0)));
        assert_eq!(Step::Months(1).after(at(2020, 1, 15, 6), 2), Some(at(2020, 3, 15, 6)));
    }

    #[test]
    fn a_step_reads_as_it_is_written() -> Result<()> {
        for text in ["7us", "1500ms", "30s", "15min", "1h", "1d", "1b", "1w", "1mo", "1q", "2y", "12me"] {
            assert_eq!(text.parse::<Step>()?.to_string(), text);
        }
        assert!("1x".parse::<Step>().is_err());
        assert!("0h".parse::<Step>().is_err());
        assert!("4000000000w".parse::<Step>().is_err());
        Ok(())
    }

    #[test]
    fn seasons_follow_from_the_step() -> Result<()> {
        let seasons =
            [("1h", 24), ("15min", 96), ("10min", 144), ("1d", 7), ("1w", 52), ("1mo", 12), ("1q", 4), ("1y", 1)];
        for (step, season) in seasons {
            assert_eq!(step.parse::<Step>()?.season(), season, "{step}");
        }
        Ok(())
    }
}
