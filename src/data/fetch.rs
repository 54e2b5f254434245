//! Fetching data files: resumed where the last attempt ended, checked before they take their place.

use std::{
    fmt,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, BufReader, Read, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use flate2::read::MultiGzDecoder;
use sha2::{Digest, Sha256};
use ureq::{
    Agent, Body,
    http::{Response, StatusCode},
};

use super::{DataFile, Dataset};
use crate::{Error, Result};

/// What became of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// It was there already, and is what it should be.
    Present(PathBuf),
    /// It was downloaded to there.
    Downloaded(PathBuf),
}

/// Hears how many bytes of a file are there, and how many there will be where that is known.
pub type Progress<'a> = &'a mut dyn FnMut(u64, Option<u64>);

/// Brings one file of `dataset` into `folder`.
///
/// The bytes go to a file whose name ends in `.part`. It stays when the transfer breaks off, and
/// the next call goes on from there, where the manifest has a checksum to tell by that the parts belong
/// together; it takes its place only when its sha256 is right. A file that is there with another sha256 is
/// replaced, once the right one has arrived.
///
/// # Errors
/// If the file has no address, the transfer fails, the content is not what the manifest says, the folder cannot
/// be written to, or another process is fetching the same file.
pub fn fetch(dataset: &Dataset, file: &DataFile, folder: &Path, progress: Progress<'_>) -> Result<Fetched> {
    if let Some(path) = present(file, folder) {
        remove_wrong(file, folder, &path)?;
        return Ok(Fetched::Present(path));
    }
    let Some(url) = &file.url else {
        let how = dataset.how.as_deref().unwrap_or("the manifest does not say where it is from");
        return Err(Error::other(format!("{} has no direct address\n{}", file.file, how.trim_end())));
    };
    let packed = url.ends_with(".gz") && !file.file.ends_with(".gz");
    let target = folder.join(if packed { format!("{}.gz", file.file) } else { file.file.clone() });
    Transfer::new(url, &target, file.sha256.as_deref()).run(progress)?;
    remove_wrong(file, folder, &target)?;
    Ok(Fetched::Downloaded(target))
}

/// The file where it is already, unless its content is known to be wrong.
fn present(file: &DataFile, folder: &Path) -> Option<PathBuf> {
    let mut candidates = [file.file.clone(), format!("{}.gz", file.file)].into_iter().map(|name| folder.join(name));
    candidates.find(|path| path.is_file() && (file.sha256.is_none() || file.sha256 == sha256(path).ok()))
}

/// Removes what would be read before the packed file `right` and is known to be wrong.
fn remove_wrong(file: &DataFile, folder: &Path, right: &Path) -> Result<()> {
    let plain = folder.join(&file.file);
    let wrong = plain != right && plain.is_file() && file.sha256.is_some() && file.sha256 != sha256(&plain).ok();
    if wrong { fs::remove_file(&plain).map_err(Error::io("remove", &plain)) } else { Ok(()) }
}

struct Transfer<'a> {
    agent: Agent,
    url: &'a str,
    target: &'a Path,
    /// The sha256 of the content.
    expected: Option<&'a str>,
    part: PathBuf,
}

impl<'a> Transfer<'a> {
    fn new(url: &'a str, target: &'a Path, expected: Option<&'a str>) -> Self {
        let config = Agent::config_builder()
            .user_agent(concat!("longcast/", env!("CARGO_PKG_VERSION")))
            // Bytes as they are stored: a range of packed bytes could not be gone on from.
            .accept_encoding("identity")
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(30)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            // A server that stalls broke off.
            .timeout_per_read(Some(Duration::from_secs(60)));
        let mut part = target.as_os_str().to_owned();
        part.push(".part");
        Self { agent: config.build().into(), url, target, expected, part: part.into() }
    }

    fn run(&self, progress: Progress<'_>) -> Result<()> {
        if let Some(folder) = self.target.parent() {
            fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        }
        let mut part =
            OpenOptions::new().create(true).append(true).open(&self.part).map_err(Error::io("write", &self.part))?;
        // Two at once would mix their bytes; one that has just ended has taken the file away.
        if matches!(part.try_lock(), Err(TryLockError::WouldBlock)) || !self.part.exists() {
            return Err(Error::file(self.target, "another process is fetching it: wait for it, and try again"));
        }
        if self.expected.is_none() {
            part.set_len(0).map_err(Error::io("write", &self.part))?;
        }
        if let Err(error) = self.download(&mut part, progress) {
            // Nothing to go on from.
            if part.metadata().is_ok_and(|metadata| metadata.len() == 0) {
                fs::remove_file(&self.part).map_err(Error::io("remove", &self.part))?;
            }
            return Err(error);
        }
        part.sync_all().map_err(Error::io("write", &self.part))?;

        if let Some(expected) = self.expected {
            let found = sha256(&self.part);
            if !found.as_ref().is_ok_and(|found| found == expected) {
                fs::remove_file(&self.part).map_err(Error::io("remove", &self.part))?;
                return Err(Error::other(format!(
                    "{}: what came has sha256 {}, but {expected} is expected: it is another version, or was \
                     damaged on the way; it has been removed",
                    self.url, found?
                )));
            }
        }
        fs::rename(&self.part, self.target).map_err(Error::io("write", self.target))
    }

    /// Completes the `.part` file.
    fn download(&self, part: &mut File, progress: Progress<'_>) -> Result<()> {
        let mut done = part.metadata().map_err(Error::io("read", &self.part))?.len();
        let mut response = self.ask(done)?;
        if done > 0 && response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            // Nothing is left to send: either all of it is here, or this is no part of it.
            if content_range(&response).is_some_and(|(_, total)| total == Some(done)) {
                return Ok(());
            }
            response = self.ask(0)?;
        }
        match response.status() {
            StatusCode::PARTIAL_CONTENT if content_range(&response).is_some_and(|(from, _)| from == Some(done)) => {}
            StatusCode::OK if done == 0 => {}
            StatusCode::OK => {
                part.set_len(0).map_err(Error::io("write", &self.part))?;
                done = 0;
            }
            status => return Err(Error::other(format!("{}: the server answers {status}", self.url))),
        }
        let total = response.body().content_length().map(|rest| done + rest);
        let mut body = response.into_body().into_reader();
        progress(done, total);
        match copy(&mut body, part, &mut |bytes| {
            done += bytes;
            progress(done, total);
        }) {
            Ok(()) if total.is_none_or(|total| total == done) => Ok(()),
            Ok(()) => Err(self.broken(done, total, "the connection was closed")),
            Err(Copying::Read(error)) => Err(self.broken(done, total, error)),
            Err(Copying::Write(error)) => Err(Error::io("write", &self.part)(error)),
        }
    }

    fn ask(&self, from: u64) -> Result<Response<Body>> {
        let request = self.agent.get(self.url);
        let request = match from {
            0 => request,
            _ => request.header("range", format!("bytes={from}-")),
        };
        request.call().map_err(|error| Error::other(format!("{}: {error}", self.url)))
    }

    fn broken(&self, done: u64, total: Option<u64>, why: impl fmt::Display) -> Error {
        let total = total.map(|total| format!(" of {total}")).unwrap_or_default();
        Error::other(format!(
            "{}: broke off after {done}{total} bytes ({why}); the same command {}",
            self.url,
            if self.expected.is_some() { "goes on from there" } else { "fetches it anew" }
        ))
    }
}

/// `bytes 5-9/10` as `(5, 10)`, `bytes */10` as `(none, 10)`.
fn content_range(response: &Response<Body>) -> Option<(Option<u64>, Option<u64>)> {
    let text = response.headers().get("content-range")?.to_str().ok()?;
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let from = range.split_once('-').and_then(|(from, _)| from.parse().ok());
    Some((from, total.parse().ok()))
}

/// Which end of a copy failed.
#[derive(Debug)]
enum Copying {
    Read(io::Error),
    Write(io::Error),
}

fn copy(from: &mut impl Read, to: &mut impl Write, copied: &mut dyn FnMut(u64)) -> Result<(), Copying> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => return to.flush().map_err(Copying::Write),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Copying::Read(error)),
        };
        to.write_all(&buffer[..read]).map_err(Copying::Write)?;
        copied(read as u64);
    }
}

/// The sha256 of a file's content, in hexadecimal; of the expanded content if it is packed by gzip.
///
/// # Errors
/// If the file cannot be read, or ends before its packed content does.
pub fn sha256(path: &Path) -> Result<String> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let mut magic = Vec::new();
    (&file).take(2).read_to_end(&mut magic).map_err(Error::io("read", path))?;
    let packed = magic == [0x1f, 0x8b];
    let mut bytes = BufReader::with_capacity(64 * 1024, io::Cursor::new(magic).chain(file));
    let mut hasher = Sha256::new();
    match packed {
        true => io::copy(&mut MultiGzDecoder::new(bytes), &mut hasher),
        false => io::copy(&mut bytes, &mut hasher),
    }
    .map_err(Error::io("read", path))?;
    Ok(hex(hasher))
}

pub(super) fn hex(hasher: Sha256) -> String {
    format!("{:x}", hasher.finalize())
}

#[cfg(test)]
mod tests {
    use std::{
        io::BufRead,
        net::{TcpListener, TcpStream},
        sync::mpsc::{Receiver, channel},
        thread,
    };

    use super::*;
    use crate::data::Manifest;

    const CONTENT: &[u8] = b"date,a\n2020-01-01,1\n2020-01-02,2\n";

    /// Answers one connection after the other as it is told, and reports the range each asked for.
    fn serve(answers: Vec<Vec<u8>>) -> (String, Receiver<Option<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/file.csv", listener.local_addr().unwrap());
        let (ranges, asked) = channel();
        thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                ranges.send(range_of(&stream)).unwrap();
                stream.write_all(&answer).unwrap();
            }
        });
        (url, asked)
    }

    fn range_of(stream: &TcpStream) -> Option<String> {
        let lines = BufReader::new(stream).lines().map(|line| line.unwrap().to_lowercase());
        let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
        head.iter().find_map(|line| line.strip_prefix("range: ").map(str::to_string))
    }

    fn answer(status: &str, headers: &str, body: &[u8], announced: usize) -> Vec<u8> {
        let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {announced}\r\n{headers}\r\n");
        [head.as_bytes(), body].concat()
    }

    fn whole() -> Vec<u8> {
        answer("200 OK", "", CONTENT, CONTENT.len())
    }

    fn cut_after(bytes: usize) -> Vec<u8> {
        answer("200 OK", "", &CONTENT[..bytes], CONTENT.len())
    }

    fn rest_from(from: usize) -> Vec<u8> {
        let (last, total) = (CONTENT.len() - 1, CONTENT.len());
        let range = format!("content-range: bytes {from}-{last}/{total}\r\n");
        answer("206 Partial Content", &range, &CONTENT[from..], total - from)
    }

    fn dataset(url: &str, sha256: &str) -> Dataset {
        let text = format!("[Mine]\nfile = \"a/mine.csv\"\nurl = \"{url}\"\nsha256 = \"{sha256}\"");
        Manifest::parse(&text, Path::new("manifest.toml")).unwrap().get("Mine").unwrap().clone()
    }

    /// Of [`CONTENT`].
    const SHA256: &str = "0b83d78911d65e6c799e3fb5c8fbbe99718a7726b00b3920b1decf31e63c8f74";

    fn fetch_quietly(dataset: &Dataset, folder: &Path) -> Result<Fetched> {
        fetch(dataset, dataset.files()[0], folder, &mut |_, _| {})
    }

    #[test]
    fn a_file_arrives_and_is_not_fetched_twice() -> Result<()> {
        let folder = tempfile::tempdir().unwrap();
        let (url, _asked) = serve(vec![whole()]);
        let dataset = dataset(&url, SHA256);
        let path = folder.path().join("a/mine.csv");

        let mut heard = vec![];
        let fetched = fetch(&dataset, dataset.files()[0], folder.path(), &mut |done, total| heard.push((done, total)))?;
        assert_eq!(fetched, Fetched::Downloaded(path.clone()));
        assert_eq!(fs::read(&path).unwrap(), CONTENT);
        assert_eq!(heard.last(), Some(&(CONTENT.len() as u64, Some(CONTENT.len() as u64))));
        // The server answers once: a second request would fail.
        assert_eq!(fetch_quietly(&dataset, folder.path())?, Fetched::Present(path));
        Ok(())
    }

    #[test]
    fn what_broke_off_is_gone_on_from() -> Result<()> {
        let folder = tempfile::tempdir().unwrap();
        let (url, asked) = serve(vec![cut_after(10), rest_from(10)]);
        let dataset = dataset(&url, SHA256);

        let message = fetch_quietly(&dataset, folder.path()).unwrap_err().to_string();
        assert!(message.contains("broke off after 10 of 33 bytes"), "{message}");
        assert!(message.ends_with("the same command goes on from there"), "{message}");
        assert!(!folder.path().join("a/mine.csv").exists());

        fetch_quietly(&dataset, folder.path())?;
        assert_eq!(asked.iter().take(2).collect::<Vec<_>>(), [None, Some("bytes=10-".to_string())]);
        assert_eq!(fs::read(folder.path().join("a/mine.csv")).unwrap(), CONTENT);
        assert!(!folder.path().join("a/mine.csv.part").exists());
        Ok(())
    }

    #[test]
    fn without_a_checksum_nothing_is_gone_on_from() -> Result<()> {
        let folder = tempfile::tempdir().unwrap();
        let (url, asked) = serve(vec![cut_after(10), whole()]);
        let text = format!("[Mine]\nfile = \"a/mine.csv\"\nurl = \"{url}\"");
        let manifest = Manifest::parse(&text, Path::new("manifest.toml"))?;
        let dataset = manifest.get("Mine")?;
        let message = fetch_quietly(dataset, folder.path()).unwrap_err().to_string();
        assert!(message.ends_with("the same command fetches it anew"), "{message}");
        fetch_quietly(dataset, folder.path())?;
        assert_eq!(asked.iter().take(2).collect::<Vec<_>>(), [None, None]);
        assert_eq!(fs::read(folder.path().join("a/mine.csv")).unwrap(), CONTENT);
        Ok(())
    }

    #[test]
    fn two_do_not_fetch_the_same_file_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let (url, _asked) = serve(vec![whole()]);
        fs::create_dir(folder.path().join("a")).unwrap();
        let other = File::create(folder.path().join("a/mine.csv.part")).unwrap();
        other.lock().unwrap();
        let message = fetch_quietly(&dataset(&url, SHA256), folder.path()).unwrap_err().to_string();
        assert!(message.contains("another process is fetching it"), "{message}");
    }

    #[test]
    fn a_damaged_file_does_not_hide_the_packed_one() -> Result<()> {
        let folder = tempfile::tempdir().unwrap();
        let (url, _asked) = serve(vec![whole()]);
        fs::create_dir(folder.path().join("a")).unwrap();
        fs::write(folder.path().join("a/mine.csv"), "date,a\n").unwrap();
        let packed = dataset(&format!("{url}.gz"), SHA256);
        assert_eq!(fetch_quietly(&packed, folder.path())?, Fetched::Downloaded(folder.path().join("a/mine.csv.gz")));
        assert!(!folder.path().join("a/mine.csv").exists());
        Ok(())
    }

    #[test]
    fn a_server_without_ranges_sends_it_all_again() -> Result<()> {
        let folder = tempfile::tempdir().unwrap();
        let (url, _asked) = serve(vec![cut_after(10), whole()]);
        let dataset = dataset(&url, SHA256);
        fetch_quietly(&dataset, folder.path()).unwrap_err();
        fetch_quietly(&dataset, folder.path())?;
        assert_eq!(fs::read(folder.path().join("a/mine.csv")).unwrap(), CONTENT);
        Ok(())
    }

    #[test]
    fn a_part_that_is_whole_takes_its_place() -> Result<()> {
        let folder = tempfile::tempdir().unwrap();
        let nothing_left = answer("416 Range Not Satisfiable", "content-range: bytes */33\r\n", b"", 0);
        let (url, _asked) = serve(vec![nothing_left]);
        fs::create_dir(folder.path().join("a")).unwrap();
        fs::write(folder.path().join("a/mine.csv.part"), CONTENT).unwrap();
        fetch_quietly(&dataset(&url, SHA256), folder.path())?;
        assert_eq!(fs::read(folder.path().join("a/mine.csv")).unwrap(), CONTENT);
        Ok(())
    }

    #[test]
    fn a_part_that_is_too_long_is_fetched_anew() -> Result<()> {
        let folder = tempfile::tempdir().unwrap();
        let nothing_left = answer("416 Range Not Satisfiable", "content-range: bytes */33\r\n", b"", 0);
        let (url, _asked) = serve(vec![nothing_left, whole()]);
        fs::create_dir(folder.path().join("a")).unwrap();
        fs::write(folder.path().join("a/mine.csv.part"), [CONTENT, CONTENT].concat()).unwrap();
        fetch_quietly(&dataset(&url, SHA256), folder.path())?;
        assert_eq!(fs::read(folder.path().join("a/mine.csv")).unwrap(), CONTENT);
        Ok(())
    }

    #[test]
    fn a_wrong_checksum_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let (url, _asked) = serve(vec![whole()]);
        let message = fetch_quietly(&dataset(&url, &"0".repeat(64)), folder.path()).unwrap_err().to_string();
        assert!(message.contains(&format!("what came has sha256 {SHA256}, but 0000")), "{message}");
        assert_eq!(fs::read_dir(folder.path().join("a")).unwrap().count(), 0);
    }

    #[test]
    fn a_damaged_file_is_replaced() -> Result<()> {
        let folder = tempfile::tempdir().unwrap();
        let (url, _asked) = serve(vec![whole()]);
        fs::create_dir(folder.path().join("a")).unwrap();
        fs::write(folder.path().join("a/mine.csv"), "date,a\n").unwrap();
        let fetched = fetch_quietly(&dataset(&url, SHA256), folder.path())?;
        assert_eq!(fetched, Fetched::Downloaded(folder.path().join("a/mine.csv")));
        Ok(())
    }

    #[test]
    fn a_missing_page_is_said_to_be_missing() {
        let folder = tempfile::tempdir().unwrap();
        let (url, _asked) = serve(vec![answer("404 Not Found", "", b"", 0)]);
        let message = fetch_quietly(&dataset(&url, SHA256), folder.path()).unwrap_err().to_string();
        assert_eq!(message, format!("{url}: the server answers 404 Not Found"));
        assert_eq!(fs::read_dir(folder.path().join("a")).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let blocked = folder.path().join("blocked");
        fs::write(&blocked, "").unwrap();
        let message = fetch_quietly(&dataset("http://127.0.0.1:9/", SHA256), &blocked).unwrap_err().to_string();
        assert!(message.starts_with(&format!("{}: cannot create", blocked.join("a").display())), "{message}");
    }

    #[test]
    fn a_full_disk_is_the_fault_of_the_writing_end() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let error = copy(&mut &CONTENT[..], &mut Full, &mut |_| {}).unwrap_err();
        assert!(matches!(error, Copying::Write(error) if error.kind() == io::ErrorKind::StorageFull));
    }

    // Linux has a device that is always full.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let (url, _asked) = serve(vec![whole()]);
        fs::create_dir(folder.path().join("a")).unwrap();
        let part = folder.path().join("a/mine.csv.part");
        std::os::unix::fs::symlink("/dev/full", &part).unwrap();
        let error = fetch_quietly(&dataset(&url, SHA256), folder.path()).unwrap_err();
        let Error::Io { action: "write", path, source } = error else { panic!("{error}") };
        assert_eq!((path, source.kind()), (part, io::ErrorKind::StorageFull));
    }

    #[test]
    fn what_has_no_address_says_how_to_get_it() -> Result<()> {
        let manifest = Manifest::builtin()?;
        let message = fetch_quietly(manifest.get("Exchange")?, Path::new(".")).unwrap_err().to_string();
        assert!(message.contains("Download exchange_rate.zip"), "{message}");
        Ok(())
    }
}
