//! One test for each thing a file can do wrong, and for each thing that is fine after all.

use std::{fs, io::Write, path::PathBuf};

use flate2::{Compression, write::GzEncoder};
use polars::prelude::*;
use tempfile::TempDir;

use super::{Duplicates, Fill, ReadOptions, Reading, TimeColumn, read, read_collection, read_table};
use crate::Result;

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }
}

fn read_text(text: impl AsRef<[u8]>, options: &ReadOptions) -> Result<Reading> {
    let folder = Folder::new();
    read(&folder.file("data.csv", text), "data", options)
}

/// The message without the folder.
fn complaint(text: impl AsRef<[u8]>, options: &ReadOptions) -> String {
    after_folder(&read_text(text, options).unwrap_err().to_string())
}

fn after_folder(message: &str) -> String {
    message.split_once("data.").map_or(message, |(_, rest)| rest.split_once(": ").unwrap().1).to_string()
}

fn plain() -> ReadOptions {
    ReadOptions::default()
}

fn zipped(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

pub(super) fn parquet(columns: Vec<Column>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let height = columns[0].len();
    ParquetWriter::new(&mut bytes).finish(&mut DataFrame::new(height, columns).unwrap()).unwrap();
    bytes
}

// What can be read.

#[test]
fn a_plain_file_has_names_times_and_values() {
    let series = read_text("date,a,b\n2020-01-01,1,-2.5\n2020-01-02,3e2,4.97E-02\n", &plain()).unwrap().series;
    assert_eq!(series.variates(), ["a", "b"]);
    assert_eq!(series.timestamps()[1].to_string(), "2020-01-02 00:00:00");
    assert_eq!((series.variate(0), series.variate(1)), (&[1.0, 300.0][..], &[-2.5, 0.0497][..]));
}

#[test]
fn the_way_lines_end_and_cells_are_quoted_does_not_matter() {
    let plain_text = "date,a,b\n2020-01-01,1,2\n2020-01-02,3,4\n";
    let same = [
        plain_text.to_string(),
        plain_text.trim_end().to_string(),
        plain_text.replace('\n', "\r\n"),
        plain_text.replace('\n', "\r"),
        plain_text.replace('\n', "\n\n"),
        format!("\u{feff}{plain_text}"),
        plain_text.replace(',', ";"),
        plain_text.replace(',', "\t"),
        plain_text.replace("2020-01-01,1", "\"2020-01-01\",\"1\""),
        plain_text.replace(",1,", ", 1 ,"),
    ];
    for text in same {
        let series = read_text(&text, &plain()).unwrap_or_else(|error| panic!("{text:?}: {error}")).series;
        assert_eq!((series.variate(0), series.variate(1)), (&[1.0, 3.0][..], &[2.0, 4.0][..]), "{text:?}");
        assert_eq!((series.variates(), series.timestamps().len()), (&["a".to_string(), "b".to_string()][..], 2));
    }
}

#[test]
fn a_file_and_its_gzipped_copy_are_the_same() {
    let folder = Folder::new();
    let text = b"date,a\n2020-01-01,1\n2020-01-02,2\n";
    let bare = read(&folder.file("data.csv", text), "data", &plain()).unwrap();
    for name in ["data.csv.gz", "data.gz"] {
        let packed = read(&folder.file(name, zipped(text)), "data", &plain()).unwrap();
        assert_eq!((packed.sha256, packed.series.variate(0)), (bare.sha256.clone(), bare.series.variate(0)));
    }
}

#[test]
fn dates_are_recognised_in_every_documented_format() {
    let of_march_second = [
        "2020-03-02 13:30:00",
        "2020-03-02 13:30",
        "2020-03-02T13:30:00",
        "2020-03-02 13:30:00.000",
        "2020-03-02 13:30:00+00:00",
        "2020-03-02T13:30:00Z",
        "2020-03-02T13:30:00.000+01:00",
        "2020/3/2 13:30",
        "3/2/2020 13:30",
        "2.3.2020 13:30",
    ];
    for cell in of_march_second {
        let series =
            read_text(format!("when,a\n{cell},1\n"), &plain()).unwrap_or_else(|error| panic!("{error}")).series;
        assert_eq!(series.timestamps()[0].to_string(), "2020-03-02 13:30:00", "{cell}");
    }
    for cell in ["2020-03-01", "2020/3/1", "3/1/2020", "1.3.2020", "2020-03", "2020/03"] {
        let series = read_text(format!("when,a\n{cell},1\n"), &plain()).unwrap().series;
        assert_eq!(series.timestamps()[0].to_string(), "2020-03-01 00:00:00", "{cell}");
    }
}

#[test]
fn day_and_month_are_told_apart_by_the_order_of_the_rows() {
    let first = |text: &str| read_text(text, &plain()).unwrap().series.timestamps()[0].to_string();
    assert_eq!(first("date,a\n01/02/2020,1\n02/02/2020,1\n03/02/2020,1\n01/03/2020,1\n"), "2020-02-01 00:00:00");
    assert_eq!(first("date,a\n01/02/2020,1\n01/03/2020,1\n01/04/2020,1\n"), "2020-01-02 00:00:00");
    assert_eq!(first("date,a\n28/02/2020,1\n29/02/2020,1\n"), "2020-02-28 00:00:00");
}

#[test]
fn changing_offsets_are_brought_to_utc() {
    let text = "date,a\n2020-10-25 02:30:00+02:00,1\n2020-10-25 02:30:00+01:00,2\n";
    let series = read_text(text, &plain()).unwrap().series;
    assert_eq!(series.timestamps()[0].to_string(), "2020-10-25 00:30:00");
    assert_eq!(series.timestamps()[1].to_string(), "2020-10-25 01:30:00");
}

#[test]
fn the_time_column_is_found_by_name_anywhere_or_by_its_dates_in_front() {
    let time = |text: &str, options: &ReadOptions| {
        let folder = Folder::new();
        let table = read_table(&folder.file("data.csv", text), options).unwrap();
        table.time_column().map(str::to_string)
    };
    assert_eq!(time("a,Date\n1,2020-01-01\n", &plain()).as_deref(), Some("Date"));
    assert_eq!(time("x,a\n2020-01-01,1\n", &plain()).as_deref(), Some("x"));
    assert_eq!(time("a,b\n1,2\n", &plain()), None);
    let absent = ReadOptions { time_column: TimeColumn::Absent, ..plain() };
    assert_eq!(time("date,a\n1,2\n", &absent), None);
    let named = ReadOptions { time_column: TimeColumn::Named("b".into()), ..plain() };
    assert_eq!(time("a,b\n1,2020-01-01\n", &named).as_deref(), Some("b"));
}

#[test]
fn columns_come_in_the_order_asked_for_and_others_may_hold_text() {
    let options = ReadOptions { columns: Some(vec!["c".into(), "a".into()]), ..plain() };
    for last in ["note", "\"quoted, note\""] {
        let text = format!("date,a,b,c,d\n2020-01-01,1,x,3,{last}\n2020-01-02,4,y,6,{last}\n");
        let series = read_text(text, &options).unwrap().series;
        assert_eq!(series.variates(), ["c", "a"]);
        assert_eq!((series.variate(0), series.variate(1)), (&[3.0, 6.0][..], &[1.0, 4.0][..]));
    }
}

#[test]
fn without_a_header_columns_are_numbered() {
    let series = read_text("1,2\n3,4\n", &ReadOptions { header: false, ..plain() }).unwrap().series;
    assert_eq!(series.variates(), ["column_1", "column_2"]);
    assert_eq!(series.variate(0), [1.0, 3.0]);
}

#[test]
fn a_parquet_file_reads_like_a_csv_file() {
    let folder = Folder::new();
    let bytes = parquet(vec![
        Column::new("date".into(), ["2020-01-01", "2020-01-02"]),
        Column::new("a".into(), [1i64, 2]),
        Column::new("b".into(), [0.5f32, 1.5]),
    ]);
    let series = read(&folder.file("data.parquet", &bytes), "data", &plain()).unwrap().series;
    assert_eq!(series.variates(), ["a", "b"]);
    assert_eq!(series.timestamps()[1].to_string(), "2020-01-02 00:00:00");
    assert_eq!((series.variate(0), series.variate(1)), (&[1.0, 2.0][..], &[0.5, 1.5][..]));
    let chosen = ReadOptions { columns: Some(vec!["b".into()]), ..plain() };
    assert_eq!(read(&folder.file("data.parquet", &bytes), "data", &chosen).unwrap().series.variate(0), [0.5, 1.5]);
}

#[test]
fn parquet_dates_of_every_type_are_timestamps() {
    let folder = Folder::new();
    let day = 18_262; // 2020-01-01
    let times = [
        Column::new("date".into(), [day]).cast(&DataType::Date).unwrap(),
        Column::new("date".into(), [i64::from(day) * 86_400_000])
            .cast(&DataType::Datetime(TimeUnit::Milliseconds, None))
            .unwrap(),
        Column::new("date".into(), [i64::from(day) * 86_400_000_000])
            .cast(&DataType::Datetime(TimeUnit::Microseconds, None))
            .unwrap(),
    ];
    for time in times {
        let bytes = parquet(vec![time, Column::new("a".into(), [1.0])]);
        let series = read(&folder.file("data.parquet", bytes), "data", &plain()).unwrap().series;
        assert_eq!(series.timestamps()[0].to_string(), "2020-01-01 00:00:00");
    }
}

#[test]
fn a_file_with_100_000_columns_can_be_read() {
    let columns = 100_000;
    let line = |cell: &dyn Fn(usize) -> String| (0..columns).map(cell).collect::<Vec<_>>().join(",");
    let text = format!("{}\n{}\n{}\n", line(&|i| format!("v{i}")), line(&|i| i.to_string()), line(&|_| "0.5".into()));
    let series = read_text(text, &plain()).unwrap().series;
    assert_eq!((series.len(), series.variates().len(), series.variate(99_999)[0]), (2, columns, 99_999.0));
}

#[test]
fn a_collection_is_one_series_a_row() {
    let folder = Folder::new();
    let text = "\"V1\",\"V2\",\"V3\",\"V4\"\n\"H1\",\"1\",\"2\",\"\"\nH2,3,4,5\n";
    let (series, sha256) = read_collection(&folder.file("data.csv", text)).unwrap();
    assert_eq!(series, [("H1".to_string(), vec![1.0, 2.0]), ("H2".to_string(), vec![3.0, 4.0, 5.0])]);
    assert_eq!(sha256.len(), 64);
}

// Remedies, each only if asked for.

#[test]
fn forward_fill_repeats_the_last_known_value() {
    let options = ReadOptions { fill: Fill::Forward, ..plain() };
    assert_eq!(read_text("a,b\n1,1\n,1\nNaN,1\n4,1\n", &options).unwrap().series.variate(0), [1.0, 1.0, 1.0, 4.0]);
    let error = complaint("a,b\n,1\n2,1\n", &options);
    assert_eq!(
        error,
        "line 2: 'a' is missing and nothing is before it to carry forward: use --fill linear, or cut the first 1 rows"
    );
}

#[test]
fn linear_fill_draws_a_line_and_keeps_the_ends_level() {
    let options = ReadOptions { fill: Fill::Linear, ..plain() };
    let series = read_text("a,b\n,1\n1,1\n,1\n,1\n4,1\n,1\n", &options).unwrap().series;
    assert_eq!(series.variate(0), [1.0, 1.0, 2.0, 3.0, 4.0, 4.0]);
}

#[test]
fn a_column_without_any_value_cannot_be_filled() {
    let error = complaint("a,b\n1,\n2,\n", &ReadOptions { fill: Fill::Linear, ..plain() });
    assert_eq!(error, "'b' has no value at all: leave it out with --columns");
}

#[test]
fn duplicates_are_joined_as_asked() {
    let text = "date,a\n2020-01-01,1\n2020-01-02,2\n2020-01-02,4\n2020-01-02,\n2020-01-03,5\n";
    let values = |duplicates, fill| {
        let options = ReadOptions { duplicates, fill, ..plain() };
        read_text(text, &options).unwrap().series.variate(0).to_vec()
    };
    assert_eq!(values(Duplicates::First, Fill::None), [1.0, 2.0, 5.0]);
    assert_eq!(values(Duplicates::Mean, Fill::None), [1.0, 3.0, 5.0]);
    assert_eq!(values(Duplicates::Keep, Fill::Forward), [1.0, 2.0, 4.0, 4.0, 5.0]);
    assert_eq!(
        complaint(text, &plain()),
        "line 4: 2020-01-02 00:00:00 is also the time of line 3 (2 duplicates in all): \
         use --duplicates first or mean, or keep to leave them as they are"
    );
}

#[test]
fn rows_are_sorted_when_asked() {
    let text = "date,a,b\n2020-01-02,2,20\n2020-01-01,1,10\n";
    let series = read_text(text, &ReadOptions { sort: true, ..plain() }).unwrap().series;
    assert_eq!((series.variate(0), series.variate(1)), (&[1.0, 2.0][..], &[10.0, 20.0][..]));
    assert_eq!(
        complaint(text, &plain()),
        "line 3: 2020-01-01 00:00:00 comes after 2020-01-02 00:00:00: bring the rows into order with --sort"
    );
}

// What cannot be read, and what is said about it.

#[test]
fn a_ragged_row_is_named() {
    assert_eq!(complaint("a,b\n1,2\n3\n", &plain()), "line 3: 1 fields, the header has 2");
    assert_eq!(complaint("a,b\n1,2\n3,4,5\n6,7\n", &plain()), "line 3: 3 fields, the header has 2");
    // Together they have as many cells as two whole rows.
    assert_eq!(complaint("a,b,c\n1,2\n3,4,5,6\n", &plain()), "line 2: 2 fields, the header has 3");
    assert_eq!(complaint("a,b\r\n1,2\r\n\r\n3\r\n", &plain()), "line 4: 1 fields, the header has 2");
    let chosen = ReadOptions { columns: Some(vec!["a".into()]), ..plain() };
    assert_eq!(complaint("a,b\n1,2\n3,4,5\n6\n", &chosen), "line 3: 3 fields, the header has 2");
}

#[test]
fn text_among_numbers_is_named() {
    let message = "line 3: 'OT' is not a number: \"n/a\"; leave the cell empty if the value is missing, \
                   or choose the columns with --columns";
    assert_eq!(complaint("date,OT\n2020-01-01,1\n2020-01-02,n/a\n", &plain()), message);
    assert_eq!(complaint("date,OT\r\n2020-01-01,1\r\n2020-01-02,n/a\r\n", &plain()), message);
    assert!(complaint("a,b\n1,true\n", &plain()).starts_with("line 2: 'b' is not a number: \"true\""));
    assert!(complaint("a;b\n1;2,5\n", &plain()).starts_with("line 2: 'b' is not a number: \"2,5\""));
}

#[test]
fn a_quoted_line_break_counts_as_a_line() {
    assert!(complaint("a,b\n\"1\n\",2\nx,4\n", &plain()).starts_with("line 4: 'a' is not a number"));
}

#[test]
fn a_date_that_is_none_is_named() {
    assert_eq!(
        complaint("date,a\n2020-01-01,1\n2020-02-30,2\n", &plain()),
        "line 3: 'date' is not a date like those before it (%Y-%m-%d): \"2020-02-30\""
    );
    assert_eq!(complaint("date,a\n2020-01-01,1\n,2\n", &plain()), "line 3: 'date' has no date");
    assert_eq!(
        complaint("date,a\nMonday,1\n", &plain()),
        "line 2: 'date' is not a date that can be read: \"Monday\"; write it as 2020-12-31 23:59:59; \
         name another with --time-column, or none"
    );
    assert!(complaint("date,a\n1/2/98,1\n", &plain()).contains("line 2: 'date' is not a date"), "two digits");
}

#[test]
fn missing_values_are_counted_and_the_first_is_named() {
    assert_eq!(
        complaint("a,b\n1,2\n3,\nNaN,5\n", &plain()),
        "line 3: 'b' is missing (2 missing values in all): fill them with --fill forward or --fill linear"
    );
}

#[test]
fn infinite_values_are_named() {
    let options = ReadOptions { fill: Fill::Forward, ..plain() };
    assert_eq!(complaint("a,b\n1,2\n3,-inf\n", &options), "line 3: 'b' is infinite: correct the value, or remove it");
    assert!(complaint("a,b\n1,2\n3,1e999\n", &options).contains("line 3: 'b' is infinite"));
}

#[test]
fn names_that_do_not_go_are_named() {
    assert_eq!(complaint("a,b,a\n1,2,3\n", &plain()), "line 1: two columns are called 'a': rename one");
    assert!(complaint("1.5,2,1.5\n1,2,3\n", &plain()).contains("use --no-header if line 1 is data"));
    assert!(complaint("2020-01-01,2\n2020-01-02,2\n", &plain()).contains("use --no-header if line 1 is data"));
    let unknown = |options: ReadOptions| read_text("date,OT\n2020-01-01,1\n", &options).unwrap_err().to_string();
    let columns = ReadOptions { columns: Some(vec!["OTT".into()]), ..plain() };
    assert_eq!(unknown(columns), "no column named 'OTT'; did you mean 'OT'?");
    let time = ReadOptions { time_column: TimeColumn::Named("dat".into()), ..plain() };
    assert_eq!(unknown(time), "no column named 'dat'; did you mean 'date'?");
    let twice = ReadOptions { columns: Some(vec!["OT".into(), "OT".into()]), ..plain() };
    assert!(unknown(twice).ends_with("column 'OT' is asked for twice"));
    let time = ReadOptions { columns: Some(vec!["date".into()]), ..plain() };
    assert!(unknown(time).ends_with("column 'date' is the time and cannot be a variate as well"));
    assert_eq!(complaint("date\n2020-01-01\n", &plain()), "there is no column of values, only the time");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let folder = Folder::new();
    let error = read(&folder.0.path().join("none.csv"), "data", &plain()).unwrap_err().to_string();
    assert!(error.contains("none.csv: cannot read: No such file"), "{error}");
    let inner = folder.0.path().join("data.csv");
    fs::create_dir(&inner).unwrap();
    assert!(read(&inner, "data", &plain()).unwrap_err().to_string().ends_with("is a folder, not a file"));
}

#[test]
fn an_unknown_format_is_refused_with_the_known_ones() {
    let folder = Folder::new();
    for (name, named) in [("data.xlsx", ".xlsx"), ("data", "no extension")] {
        let error = read(&folder.file(name, "x"), "data", &plain()).unwrap_err().to_string();
        let expected = format!("{named} is not a format that can be read: use .csv, .txt, .csv.gz, .gz or .parquet");
        assert!(error.ends_with(&expected), "{error}");
    }
}

#[test]
fn an_empty_file_and_a_lonely_header_are_refused() {
    assert_eq!(complaint("", &plain()), "the file is empty");
    assert_eq!(complaint("\n\n", &plain()), "the file is empty");
    assert_eq!(complaint("\u{feff}", &plain()), "the file is empty");
    assert_eq!(complaint("a,b", &plain()), "there is a header, but no row below it");
    assert_eq!(complaint("a,b\r\n\r\n", &plain()), "there is a header, but no row below it");
}

#[test]
fn a_single_column_may_not_have_empty_lines() {
    assert_eq!(complaint("a\n1\n\n3\n", &plain()), "line 3: the line is empty: remove it, or give it a value");
    assert_eq!(read_text("a\n1\n2\n\n", &plain()).unwrap().series.variate(0), [1.0, 2.0]);
}

#[test]
fn bytes_that_are_no_text_are_placed() {
    assert_eq!(
        complaint(b"a,b\n1,2\n3,\xff\n", &plain()),
        "line 3: not UTF-8 text: convert the file; the first other byte is at byte 10 of the file"
    );
    assert_eq!(complaint(b"a,b\n1,\0\n", &plain()), "line 2: not text: there is a NUL byte at byte 6 of the file");
    assert!(complaint(zipped(b"a\n1\n"), &plain()).contains("under the name of a text file"));
}

#[test]
fn an_open_quote_is_suspected() {
    let message = complaint("a,b\n\"1,2\n3,4\n", &plain());
    assert_eq!(message, "line 2: 1 fields, the header has 2; a quote may not be closed");
}

#[test]
fn a_cut_gzip_file_is_recognised() {
    let folder = Folder::new();
    let whole = zipped("date,a\n2020-01-01,1\n".repeat(500).as_bytes());
    for length in [5, 12, whole.len() / 2, whole.len() - 3] {
        let error = read(&folder.file("data.csv.gz", &whole[..length]), "data", &plain()).unwrap_err().to_string();
        assert!(error.contains("the gzip stream ends too early"), "{length}: {error}");
    }
    let error = read(&folder.file("data.csv.gz", "a,b\n1,2\n"), "data", &plain()).unwrap_err().to_string();
    assert!(error.ends_with("is not gzip data: rename it, or fetch it again"), "{error}");
    let empty = read(&folder.file("data.csv.gz", zipped(b"")), "data", &plain()).unwrap_err().to_string();
    assert!(empty.ends_with("the file is empty"), "{empty}");
}

#[test]
fn parquet_files_that_do_not_go_are_refused() {
    let folder = Folder::new();
    let refused = |bytes: &[u8]| {
        after_folder(&read(&folder.file("data.parquet", bytes), "data", &plain()).unwrap_err().to_string())
    };
    let whole = parquet(vec![Column::new("a".into(), (0..1000).map(f64::from).collect::<Vec<_>>())]);
    for length in [3, 20, whole.len() / 2, whole.len() - 1] {
        assert!(refused(&whole[..length]).starts_with("not a complete Parquet file"), "{}", refused(&whole[..length]));
    }
    let text = parquet(vec![Column::new("a".into(), [1.0]), Column::new("b".into(), ["x"])]);
    assert_eq!(refused(&text), "'b' holds str, not numbers: choose the columns with --columns");
    let missing = parquet(vec![Column::new("a".into(), [Some(1.0), None])]);
    assert!(refused(&missing).starts_with("row 2: 'a' is missing (1 missing values in all)"));
    let no_row = parquet(vec![Column::new("a".into(), Vec::<f64>::new())]);
    assert_eq!(refused(&no_row), "there are columns, but no row");
    let dates = parquet(vec![Column::new("date".into(), [1i64]), Column::new("a".into(), [1.0])]);
    assert_eq!(refused(&dates), "'date' holds i64, not dates: name another with --time-column, or none");
}

#[test]
fn collections_name_the_line_too() {
    let folder = Folder::new();
    let refused = |text: &str| after_folder(&read_collection(&folder.file("data.csv", text)).unwrap_err().to_string());
    assert!(refused("V1,V2\nA,1\nB,x\n").starts_with("line 3: 'V2' is not a number: \"x\""));
    assert_eq!(refused("V1,V2\nA,1\nB\n"), "line 3: 1 fields, the header has 2");
    assert_eq!(refused("V1,V2\r\nA,1\r\nB,\r\n"), "line 3: series 'B' has no value");
    assert_eq!(refused("V1,V2,V3,V4\nA,1,,2\n"), "line 2: 'A' has a value in field 4 after an empty one");
    assert_eq!(refused("V1,V2\n"), "there is a header, but no series below it");
    assert_eq!(refused(""), "the file is empty");
}
