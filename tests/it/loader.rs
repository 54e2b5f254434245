//! The loader on the real data sets, where they are at hand.

use longcast::data::{
    Step,
    doctor::examine,
    loader::{Duplicates, ReadOptions, read, read_collection, read_table},
};

use crate::real_data_folder;

/// File, rows, variates, step, first and last timestamp.
const SETS: [(&str, usize, usize, &str, &str, &str); 17] = [
    ("ETT-small/ETTh1.csv", 17420, 7, "1h", "2016-07-01 00:00", "2018-06-26 19:00"),
    ("ETT-small/ETTh2.csv", 17420, 7, "1h", "2016-07-01 00:00", "2018-06-26 19:00"),
    ("ETT-small/ETTm1.csv.gz", 69680, 7, "15min", "2016-07-01 00:00", "2018-06-26 19:45"),
    ("ETT-small/ETTm2.csv.gz", 69680, 7, "15min", "2016-07-01 00:00", "2018-06-26 19:45"),
    ("weather/weather.csv.gz", 52696, 21, "10min", "2020-01-01 00:10", "2021-01-01 00:00"),
    ("exchange_rate/exchange_rate.csv", 7588, 8, "1d", "1990-01-01 00:00", "2010-10-10 00:00"),
    ("illness/national_illness.csv", 966, 7, "1w", "2002-01-01 00:00", "2020-06-30 00:00"),
    ("olinear/cars.csv", 6728, 10, "1d", "2005-01-03 00:00", "2023-06-05 00:00"),
    ("olinear/covid.csv", 335, 55, "1d", "2020-02-01 00:00", "2020-12-31 00:00"),
    ("olinear/dowjones.csv", 6577, 27, "1b", "1999-01-22 00:00", "2025-03-14 00:00"),
    ("olinear/nasdaq.csv", 3914, 12, "1b", "2010-01-04 00:00", "2024-10-25 00:00"),
    ("olinear/power.csv", 1186, 2, "1d", "2020-04-01 00:00", "2023-06-30 00:00"),
    ("olinear/SP500.csv", 8077, 5, "1b", "1993-01-29 00:00", "2025-02-28 00:00"),
    ("olinear/unemployment.csv", 531, 53, "1mo", "1976-01-01 00:00", "2020-03-01 00:00"),
    ("olinear/website.csv", 2167, 4, "1d", "2014-09-14 00:00", "2020-08-19 00:00"),
    ("olinear/wiki_mini.csv", 730, 99, "1d", "2000-01-01 00:00", "2001-12-30 00:00"),
    ("los_loop/los_speed.csv.gz", 2016, 207, "5min", "2012-03-01 00:00", "2012-03-07 23:55"),
];

#[test]
fn all_multivariate_sets_are_read_as_they_are_described() {
    let Some(folder) = real_data_folder() else { return };
    let options = ReadOptions { duplicates: Duplicates::Keep, ..ReadOptions::default() };
    for (file, rows, variates, step, first, last) in SETS {
        let series = read(&folder.join(file), file, &options).unwrap_or_else(|error| panic!("{error}")).series;
        let times = series.timestamps();
        let minute = |row: usize| times[row].format("%Y-%m-%d %H:%M").to_string();
        assert_eq!((series.len(), series.variates().len()), (rows, variates), "{file}");
        assert_eq!(Step::detect(times).map(|step| step.to_string()).as_deref(), Some(step), "{file}");
        assert_eq!((minute(0).as_str(), minute(rows - 1).as_str()), (first, last), "{file}");
    }
}

#[test]
fn values_and_checksum_are_those_of_the_file() {
    let Some(folder) = real_data_folder() else { return };
    let hourly = read(&folder.join("ETT-small/ETTh1.csv"), "ETTh1", &ReadOptions::default()).unwrap();
    assert_eq!(hourly.sha256, "f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066");
    assert_eq!(hourly.series.variates(), ["HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT"]);
    assert_eq!(hourly.series.variate(0)[0], 5.827_000_141_143_799);
    assert_eq!(hourly.series.variate(6)[17419], 9.567_000_389_099_12);
    let quarterly = read(&folder.join("ETT-small/ETTm1.csv.gz"), "ETTm1", &ReadOptions::default()).unwrap();
    assert_eq!(quarterly.sha256, "6ce1759b1a18e3328421d5d75fadcb316c449fcd7cec32820c8dafda71986c9e");
}

#[test]
fn weather_is_refused_for_its_duplicate_and_read_with_a_remedy() {
    let Some(folder) = real_data_folder() else { return };
    let file = folder.join("weather/weather.csv.gz");
    let error = read(&file, "Weather", &ReadOptions::default()).unwrap_err().to_string();
    assert!(error.contains("line 19046: 2020-05-12 06:00:00 is also the time of line 19045 (1 duplicate"), "{error}");
    let first = ReadOptions { duplicates: Duplicates::First, ..ReadOptions::default() };
    assert_eq!(read(&file, "Weather", &first).unwrap().series.len(), 52695);
    let table = read_table(&file, &ReadOptions::default()).unwrap();
    assert_eq!(table.values().iter().filter(|value| **value == -9999.0).count(), 81);
    assert!(table.variates().iter().any(|name| name.contains('\u{fffd}')));
}

#[test]
fn competition_sets_have_the_series_they_are_said_to_have() {
    let Some(folder) = real_data_folder() else { return };
    let sets = [
        ("m4/Hourly-train.csv", 414, 700, 960),
        ("m4/Hourly-test.csv", 414, 48, 48),
        ("m4/Weekly-train.csv.gz", 359, 80, 2597),
        ("m3/yearly-train.csv", 645, 14, 41),
        ("m3/monthly-train.csv", 1428, 48, 126),
        ("m3/other-test.csv", 174, 8, 8),
        ("m1/monthly-train.csv", 617, 30, 132),
        ("m1/quarterly-test.csv", 203, 8, 8),
        ("tourism/monthly-train.csv", 366, 67, 309),
        ("tourism/yearly-train.csv", 518, 7, 43),
    ];
    for (file, count, shortest, longest) in sets {
        let (series, _) = read_collection(&folder.join(file)).unwrap_or_else(|error| panic!("{error}"));
        let lengths = || series.iter().map(|(_, values)| values.len());
        assert_eq!((series.len(), lengths().min(), lengths().max()), (count, Some(shortest), Some(longest)), "{file}");
    }
}

#[test]
fn the_doctor_finds_what_is_known_of_weather() {
    let Some(folder) = real_data_folder() else { return };
    let diagnosis = examine(&folder.join("weather/weather.csv.gz"), &ReadOptions::default()).unwrap();
    let of_kind = |kind: &str| -> Vec<&str> {
        let of_kind = diagnosis.findings.iter().filter(|finding| finding.kind == kind);
        of_kind.map(|finding| finding.text.as_str()).collect()
    };
    let sentinels = of_kind("sentinel");
    assert_eq!(sentinels.len(), 3, "{sentinels:?}");
    for (text, expected) in
        sentinels.iter().zip(["'wv (m/s)' is -9999 in one row", "in 30 rows", "'OT' is -9999 in 50 rows"])
    {
        assert!(text.contains(expected), "{text}");
    }
    assert_eq!((diagnosis.duplicates, diagnosis.irregular_steps, diagnosis.missing_timestamps), (1, 1, 9));
    assert!(!diagnosis.usable());
    let keep = ReadOptions { duplicates: Duplicates::Keep, ..ReadOptions::default() };
    assert!(examine(&folder.join("weather/weather.csv.gz"), &keep).unwrap().usable());
}
