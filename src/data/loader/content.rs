//! The bytes of a file: which format they are in, expanded, and their checksum.

use std::{
    fs,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

use flate2::read::MultiGzDecoder;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::{Error, Result, data::fetch};

/// What gzip data begin with.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// More than this no deflate stream expands to: a bound for what a damaged file says of itself.
const HIGHEST_RATIO: usize = 1032;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Csv,
    Parquet,
}

/// A whole file in memory; gzip is already expanded.
pub(super) struct Content {
    pub(super) bytes: Vec<u8>,
    pub(super) format: Format,
}

impl Content {
    pub(super) fn of(path: &Path) -> Result<Self> {
        let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
        let format = match extension.as_deref() {
            Some("csv" | "txt" | "gz") => Format::Csv,
            Some("parquet") => Format::Parquet,
            _ => {
                let named = extension.map_or("no extension".to_string(), |extension| format!(".{extension}"));
                return Err(Error::file(
                    path,
                    format!("{named} is not a format that can be read: use .csv, .txt, .csv.gz, .gz or .parquet"),
                ));
            }
        };
        if path.is_dir() {
            return Err(Error::file(path, "is a folder, not a file"));
        }
        let mut bytes = whole(path).map_err(Error::io("read", path))?;
        if extension.as_deref() == Some("gz") {
            bytes = expand(path, &bytes)?;
        }
        if bytes.is_empty() {
            return Err(Error::file(path, "the file is empty"));
        }
        Ok(Self { bytes, format })
    }

    pub(super) fn sha256(&self) -> String {
        fetch::hex(Sha256::new_with_prefix(&self.bytes))
    }
}

/// All bytes of a file, a large one's by several threads: what is cached is copied only.
fn whole(path: &Path) -> io::Result<Vec<u8>> {
    const PART: usize = 1 << 23;
    let len = fs::metadata(path)?.len();
    if len <= PART as u64 {
        return fs::read(path);
    }
    let len = usize::try_from(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
    // `vec!` has its zeros from the system, which gives each thread its own when it writes, but it has no error.
    Vec::<u8>::new().try_reserve_exact(len)?;
    let mut bytes = vec![0; len];
    bytes.par_chunks_mut(PART).enumerate().try_for_each(|(index, part)| {
        let mut file = fs::File::open(path)?;
        file.seek(SeekFrom::Start((index * PART) as u64))?;
        file.read_exact(part)
    })?;
    Ok(bytes)
}

fn expand(path: &Path, packed: &[u8]) -> Result<Vec<u8>> {
    if packed.is_empty() {
        return Err(Error::file(path, "the file is empty"));
    }
    if !GZIP.starts_with(&packed[..packed.len().min(2)]) {
        return Err(Error::file(path, "is not gzip data: rename it, or fetch it again"));
    }
    // The stream ends with the length of its content; growing by doubling would take twice the memory.
    let told = packed.last_chunk().map_or(0, |length| u32::from_le_bytes(*length) as usize);
    let mut bytes = Vec::with_capacity(told.min(packed.len().saturating_mul(HIGHEST_RATIO)));
    match MultiGzDecoder::new(packed).read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err(Error::file(
            path,
            format!("the gzip stream ends too early, after {} bytes of content: fetch the file again", bytes.len()),
        )),
        Err(error) => Err(Error::file(path, format!("cannot be expanded as gzip: {error}"))),
    }
}

/// The text of a file without its byte order mark.
///
/// # Errors
/// If it is not UTF-8 or holds a NUL byte: the line and the offset in bytes.
pub(super) fn text<'a>(path: &Path, bytes: &'a [u8]) -> Result<&'a str> {
    let fault = |offset: usize, message: &str| Error::Line {
        file: path.to_path_buf(),
        line: 1 + newlines(&bytes[..offset]) as u64,
        message: format!("{message} at byte {offset} of the file"),
    };
    if bytes.starts_with(b"PAR1") || bytes.starts_with(&GZIP) {
        return Err(Error::file(path, "holds Parquet or gzip data under the name of a text file: rename it"));
    }
    let (text, nul) = rayon::join(|| std::str::from_utf8(bytes), || memchr::memchr(0, bytes));
    let text =
        text.map_err(|error| fault(error.valid_up_to(), "not UTF-8 text: convert the file; the first other byte is"))?;
    if let Some(offset) = nul {
        return Err(fault(offset, "not text: there is a NUL byte"));
    }
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

pub(super) fn newlines(bytes: &[u8]) -> usize {
    count(bytes, b'\n')
}

/// How often `byte` occurs; in runs short enough for one-byte lanes, which vectorise.
pub(super) fn count(bytes: &[u8], byte: u8) -> usize {
    let in_run = |run: &[u8]| run.iter().map(|other| u8::from(*other == byte)).sum::<u8>();
    bytes.chunks(255).map(|run| usize::from(in_run(run))).sum()
}
