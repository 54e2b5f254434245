//! Competition files: many short series, one a row.

use std::path::Path;

use csv::StringRecord;

use super::{
    content::{self, Content, Format},
    layout, lines,
};
use crate::{Error, Result};

/// Series by id, in the order of the file.
pub type Collection = Vec<(String, Vec<f64>)>;

/// The series of a competition file (M1, M3, M4, Tourism), each with its id, and the sha256 of the
/// content.
///
/// Below a header there is one row a series: the id, its values, then empty cells up to the length
/// of the longest series.
///
/// # Errors
/// If the file cannot be read, a cell holds text, a series has no value, or an empty cell is
/// followed by a value.
pub fn read_collection(path: &Path) -> Result<(Collection, String)> {
    let content = Content::of(path)?;
    if content.format != Format::Csv {
        return Err(Error::file(path, "a collection of series is a CSV file with one series a row"));
    }
    let text = content::text(path, &content.bytes)?;
    let mut reader = layout::reader(b',').from_reader(text.as_bytes());
    let mut record = StringRecord::new();
    let mut collection = Collection::new();
    let (mut line, mut counted) = (1, 0);
    let mut width = None;
    loop {
        let at = usize::try_from(reader.position().byte()).expect("an offset in a text in memory");
        let start = at + text[at..].find(|c| c != '\r' && c != '\n').unwrap_or(text.len() - at);
        line += content::newlines(&text.as_bytes()[counted..start]) as u64;
        counted = start;
        let fault = |message: String| Error::Line { file: path.to_path_buf(), line, message };
        if !reader.read_record(&mut record).map_err(|error| fault(format!("cannot be read as CSV: {error}")))? {
            break;
        }
        let Some(width) = width else {
            width = Some(record.len());
            continue;
        };
        if record.len() != width {
            return Err(fault(format!("{} fields, the header has {width}", record.len())));
        }
        let id = record.get(0).unwrap_or_default().trim().to_string();
        let mut values = Vec::new();
        let mut ended = false;
        for (column, cell) in record.iter().enumerate().skip(1) {
            let name = format!("V{}", column + 1);
            let value = lines::number(cell).ok_or_else(|| lines::not_a_number(path, line, &name, cell))?;
            match (value.is_nan(), ended) {
                (true, _) => ended = true,
                (false, true) => {
                    return Err(fault(format!("'{id}' has a value in field {} after an empty one", column + 1)));
                }
                (false, false) if value.is_infinite() => return Err(fault(format!("'{id}' has an infinite value"))),
                (false, false) => values.push(value),
            }
        }
        if values.is_empty() {
            return Err(fault(format!("series '{id}' has no value")));
        }
        collection.push((id, values));
    }
    if collection.is_empty() {
        return Err(Error::file(path, "there is a header, but no series below it"));
    }
    Ok((collection, content.sha256()))
}
