//! Whatever bytes a file holds, the loader answers with a series or an error: it never panics.
//!
//! `PROPTEST_CASES` says for how many files.

use std::{fs, io::Write, path::Path, sync::LazyLock};

use flate2::{Compression, write::GzEncoder};
use polars::prelude::Column;
use proptest::prelude::*;

use super::{
    Duplicates, Fill, ReadOptions, TimeColumn, columnar,
    content::{self, Content},
    layout::Layout,
    lines, read, read_collection, read_table, tests,
};
use crate::data::doctor::examine;

/// Cells a parser may stumble over.
const CELLS: [&str; 40] = [
    "",
    "1",
    "-2.5",
    "3e2",
    "1e999",
    "-0",
    "NaN",
    "nan",
    "inf",
    "-Infinity",
    "n/a",
    "\"",
    "\"\"",
    "\"1\"",
    "\"1",
    "1\"",
    "\"a,b\"",
    "\"a\nb\"",
    " 7 ",
    "\t",
    "+5",
    ".5",
    "5.",
    "0x10",
    "1_000",
    "1,5",
    "\u{fffd}",
    "é",
    "\u{feff}",
    "date",
    "2020-01-01",
    "2020-01-02 00:00:00",
    "2020-13-01",
    "1/2/2020",
    "13/2/2020",
    "31.12.99",
    "99999-01-01",
    "-262143-01-01",
    "2020-01-01T00:00:00+25:00",
    "1e-400",
];

fn text() -> impl Strategy<Value = Vec<u8>> {
    let cell = || prop_oneof![4 => "-?[0-9]{1,3}(\\.[0-9]{1,3})?", 2 => proptest::sample::select(&CELLS[..]).prop_map(String::from)];
    let ends = || prop_oneof![8 => Just("\n"), 2 => Just("\r\n"), 1 => Just("\r"), 1 => Just("\n\n"), 1 => Just("")];
    let separator = prop_oneof![8 => Just(","), 1 => Just(";"), 1 => Just("\t")];
    let line = (prop::collection::vec(cell(), 1..6), ends());
    (separator, 1usize..6, prop::collection::vec(line, 0..12), any::<bool>(), any::<bool>()).prop_map(
        |(separator, width, lines, even, head)| {
            let mut text =
                if head { "date,a,b,c,d"[..2 * width + 2].replace(',', separator) + "\n" } else { String::new() };
            for (mut cells, end) in lines {
                if even {
                    cells.resize(width, "1".to_string());
                }
                text += &(cells.join(separator) + end);
            }
            text.into_bytes()
        },
    )
}

fn options() -> impl Strategy<Value = ReadOptions> {
    let time = prop_oneof![
        Just(TimeColumn::Auto),
        Just(TimeColumn::Absent),
        Just(TimeColumn::Named("date".into())),
        Just(TimeColumn::Named("a".into())),
    ];
    let columns = prop_oneof![
        Just(None),
        Just(Some(vec!["a".to_string()])),
        Just(Some(vec!["c".to_string(), "a".to_string()])),
        Just(Some(Vec::new())),
    ];
    let fill = prop_oneof![Just(Fill::None), Just(Fill::Forward), Just(Fill::Linear)];
    let duplicates =
        prop_oneof![Just(Duplicates::Error), Just(Duplicates::First), Just(Duplicates::Mean), Just(Duplicates::Keep)];
    (time, columns, fill, duplicates, any::<bool>(), any::<bool>()).prop_map(
        |(time_column, columns, fill, duplicates, sort, header)| ReadOptions {
            time_column,
            columns,
            fill,
            duplicates,
            sort,
            header,
        },
    )
}

/// Whatever both readers accept they read alike, to the bit.
fn readers_agree(file: &Path, options: &ReadOptions) -> Result<(), TestCaseError> {
    let Ok(content) = Content::of(file) else { return Ok(()) };
    let Ok(text) = content::text(file, &content.bytes) else { return Ok(()) };
    let Ok(layout) = Layout::of(file, text, options) else { return Ok(()) };
    let fast = columnar::csv_columns(text, &layout);
    if let Some((timestamps, values, _)) = fast {
        let slow = lines::read_line_by_line(file, text, &layout, 1);
        let slow = slow.map_err(|faults| TestCaseError::fail(format!("only polars reads it: {faults:?}")))?;
        prop_assert_eq!(timestamps, slow.timestamps());
        let all = slow.values.as_slice_memory_order().expect("a table is kept column by column");
        let bits = |values: &[f64]| values.iter().map(|value| canonical(*value)).collect::<Vec<_>>();
        prop_assert_eq!(bits(&values), bits(all));
    }
    Ok(())
}

/// All NaN are the same: missing.
fn canonical(value: f64) -> u64 {
    if value.is_nan() { f64::NAN.to_bits() } else { value.to_bits() }
}

/// Bytes overwritten, inserted or cut off.
fn changes() -> impl Strategy<Value = Vec<(prop::sample::Index, u8, u8)>> {
    prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..3), 0..6)
}

fn changed(mut bytes: Vec<u8>, changes: &[(prop::sample::Index, u8, u8)]) -> Vec<u8> {
    for (place, byte, kind) in changes {
        if bytes.is_empty() {
            break;
        }
        let place = place.index(bytes.len());
        match kind {
            0 => bytes[place] = *byte,
            1 => bytes.insert(place, *byte),
            _ if *byte < 20 => bytes.truncate(place),
            _ => {
                bytes.remove(place);
            }
        }
    }
    bytes
}

fn answers(folder: &Path, name: &str, bytes: &[u8], options: &ReadOptions) -> Result<(), TestCaseError> {
    let file = folder.join(name);
    fs::write(&file, bytes)?;
    let table = read_table(&file, options);
    if let Ok(reading) = read(&file, "fuzz", options) {
        prop_assert!(table.is_ok(), "a series, but no table");
        prop_assert!(reading.series.values().iter().all(|value| value.is_finite()));
        prop_assert!(!reading.series.is_empty());
    }
    if let Ok(diagnosis) = examine(&file, options) {
        let series = read(&file, "fuzz", options);
        prop_assert_eq!(diagnosis.usable(), series.is_ok(), "doctor: {:?}\nreader: {:?}", diagnosis, series.err());
    }
    let _ = read_collection(&file);
    if !name.ends_with("parquet") {
        readers_agree(&file, options)?;
    }
    Ok(())
}

static PARQUET: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let dates: Vec<String> = (1..=20).map(|day| format!("2020-01-{day:02}")).collect();
    tests::parquet(vec![
        Column::new("date".into(), dates),
        Column::new("a".into(), (0..20).map(f64::from).collect::<Vec<_>>()),
        Column::new("b".into(), (0..20).map(|row| (row % 3 != 0).then_some(row)).collect::<Vec<Option<i32>>>()),
    ])
});

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_read_or_refused(text in text(), changes in changes(), options in options()) {
        let folder = tempfile::tempdir()?;
        answers(folder.path(), "fuzz.csv", &changed(text, &changes), &options)?;
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), options in options()) {
        let folder = tempfile::tempdir()?;
        for name in ["fuzz.csv", "fuzz.csv.gz", "fuzz.parquet"] {
            answers(folder.path(), name, &bytes, &options)?;
        }
    }

    #[test]
    fn any_damaged_gzip_is_read_or_refused(text in text(), changes in changes(), options in options()) {
        let folder = tempfile::tempdir()?;
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&text)?;
        answers(folder.path(), "fuzz.csv.gz", &changed(encoder.finish()?, &changes), &options)?;
    }

    #[test]
    fn any_damaged_parquet_is_read_or_refused(changes in changes(), options in options()) {
        let folder = tempfile::tempdir()?;
        answers(folder.path(), "fuzz.parquet", &changed(PARQUET.clone(), &changes), &options)?;
    }
}
