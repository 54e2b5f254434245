//! The folder of a saved pipeline: `model.toml`, and beside it the files of the forecaster.
//!
//! `model.toml` names the checksum of every file, and ends in its own: whatever is cut, flipped or written over is
//! refused before anything is built from it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

use crate::{Error, Result, error::explain_toml};

const MODEL_FILE: &str = "model.toml";
/// Of what a folder holds; one of another format is not read.
const FORMAT: u32 = 1;
const SEAL: &str = "# sha256 of all above: ";

/// What `model.toml` says.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Model<T> {
    format: u32,
    /// Of the program that fitted it.
    version: String,
    /// sha256 of each file beside it.
    files: BTreeMap<String, String>,
    pipeline: T,
}

/// What was read from a folder.
pub struct Saved<T> {
    pub pipeline: T,
    /// Of the program that fitted it.
    pub version: String,
    /// The files beside `model.toml` that belong to it.
    pub files: Vec<String>,
}

/// What every format says.
#[derive(Deserialize)]
struct Written {
    #[serde(default)]
    format: u32,
    version: Option<String>,
}

/// Writes the files that `write` puts into a folder, and what `pipeline`, fitted by `version`, says of them, into `dir`.
///
/// # Errors
/// If it cannot be written; what stood there before is then still whole, unless the last renames failed.
pub fn save<T: Serialize>(
    dir: &Path,
    version: &str,
    pipeline: &T,
    write: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    fs::create_dir_all(dir).map_err(Error::io("make the folder", dir))?;
    let aside = dir.join(format!(".saving-{}", std::process::id()));
    fs::create_dir_all(&aside).map_err(Error::io("make the folder", &aside))?;
    let saved = write(&aside).and_then(|()| put_in_place(dir, &aside, version, pipeline));
    // Whatever came of it, nothing is left beside the model.
    let removed = fs::remove_dir_all(&aside).map_err(Error::io("remove", &aside));
    saved.and(removed)
}

fn put_in_place<T: Serialize>(dir: &Path, aside: &Path, version: &str, pipeline: &T) -> Result<()> {
    let written = files_in(aside)?;
    let mut files = BTreeMap::new();
    for name in &written {
        files.insert(name.clone(), sha256(&aside.join(name))?);
    }
    let model = Model { format: FORMAT, version: version.to_string(), files, pipeline };
    let text = toml::to_string(&model).map_err(|error| Error::other(error.to_string()))?;
    let text = format!("{text}{SEAL}{}\n", hex(text.as_bytes()));
    let file = aside.join(MODEL_FILE);
    fs::write(&file, text).map_err(Error::io("write", &file))?;
    // The model last: until it is there, the old one does not go with the new files, and is refused.
    for name in written.iter().map(String::as_str).chain([MODEL_FILE]) {
        fs::rename(aside.join(name), dir.join(name)).map_err(Error::io("write", &dir.join(name)))?;
    }
    Ok(())
}

/// What `model.toml` in `dir` says of a pipeline, once every file is found to be as it was written.
///
/// # Errors
/// If the folder holds none, one of another format, or one that has been changed.
pub fn load<T: DeserializeOwned>(dir: &Path) -> Result<Saved<T>> {
    let file = dir.join(MODEL_FILE);
    let text = fs::read_to_string(&file).map_err(Error::io("read", &file))?;
    let Some((body, seal)) = text.rsplit_once(SEAL) else {
        return Err(Error::file(&file, unsealed(&text)));
    };
    if seal.strip_suffix('\n') != Some(&hex(body.as_bytes())) {
        return Err(Error::file(&file, "it is not as it was written: damaged, cut or changed by hand; fit again"));
    }
    let fault = |error| Error::file(&file, explain_toml(body, &error));
    let written: Written = toml::from_str(body).map_err(fault)?;
    if written.format != FORMAT {
        return Err(Error::file(&file, of_another_format(&written)));
    }
    let model: Model<T> = toml::from_str(body).map_err(fault)?;
    for (name, expected) in &model.files {
        let file = dir.join(name);
        let found = sha256(&file)?;
        if found != *expected {
            let message =
                format!("it is not what {MODEL_FILE} beside it was written with: damaged or replaced; fit again");
            return Err(Error::file(&file, message));
        }
    }
    Ok(Saved { pipeline: model.pipeline, version: model.version, files: model.files.into_keys().collect() })
}

/// Why a file without a seal is not read.
fn unsealed(text: &str) -> String {
    match toml::from_str::<Written>(text) {
        Ok(written) if written.version.is_some() && written.format != FORMAT => of_another_format(&written),
        _ => format!("its last line, with its checksum, is missing: it is cut or no {MODEL_FILE} of longcast"),
    }
}

fn of_another_format(written: &Written) -> String {
    let this = env!("CARGO_PKG_VERSION");
    let version = written.version.as_deref().unwrap_or("of unknown number");
    format!(
        "written by version {version} in another format, which version {this} does not read; use that version or fit again"
    )
}

fn files_in(dir: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(dir).map_err(Error::io("read the folder", dir))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<std::io::Result<Vec<PathBuf>>>();
    let mut names = Vec::new();
    for path in paths.map_err(Error::io("read the folder", dir))? {
        match path.file_name().and_then(|name| name.to_str()) {
            Some(name) if path.is_file() && name != MODEL_FILE => names.push(name.to_string()),
            _ => return Err(Error::file(&path, "a forecaster saves files only, none called model.toml")),
        }
    }
    names.sort();
    Ok(names)
}

fn sha256(file: &Path) -> Result<String> {
    fs::read(file).map(|content| hex(&content)).map_err(Error::io("read", file))
}

fn hex(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let weights = |dir: &Path| fs::write(dir.join("weights"), [1, 2, 3]).map_err(Error::io("write", dir));
        save(folder.path(), "0.1.0", &BTreeMap::from([("lookback", 96)]), weights).unwrap();
        folder
    }

    fn refusal(dir: &Path) -> String {
        load::<BTreeMap<String, usize>>(dir).err().unwrap().to_string()
    }

    #[test]
    fn what_is_saved_is_loaded_and_nothing_is_left_aside() -> Result<()> {
        let folder = saved();
        let saved = load::<BTreeMap<String, usize>>(folder.path())?;
        assert_eq!(
            (saved.pipeline["lookback"], saved.version.as_str(), &saved.files[..]),
            (96, "0.1.0", &["weights".to_string()][..])
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        Ok(())
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_refused() {
        for name in [MODEL_FILE, "weights"] {
            let folder = saved();
            let file = folder.path().join(name);
            let whole = fs::read(&file).unwrap();
            for length in 0..whole.len() {
                fs::write(&file, &whole[..length]).unwrap();
                refusal(folder.path());
            }
            for position in 0..whole.len() {
                for bit in 0..8 {
                    let mut flipped = whole.clone();
                    flipped[position] ^= 1 << bit;
                    fs::write(&file, flipped).unwrap();
                    refusal(folder.path());
                }
            }
            fs::remove_file(&file).unwrap();
            assert!(refusal(folder.path()).contains(name));
        }
    }

    #[test]
    fn another_format_names_the_version_that_wrote_it() {
        let folder = saved();
        let file = folder.path().join(MODEL_FILE);
        let text = fs::read_to_string(&file).unwrap().replace("format = 1", "format = 7").replace("0.1.0", "9.9.9");
        let body = text.rsplit_once(SEAL).unwrap().0;
        fs::write(&file, format!("{body}{SEAL}{}\n", hex(body.as_bytes()))).unwrap();
        assert!(
            refusal(folder.path()).contains("written by version 9.9.9 in another format"),
            "{}",
            refusal(folder.path())
        );
        // From before there were formats.
        fs::write(&file, "version = \"0.0.9\"\nmodel = \"ridge\"\n").unwrap();
        assert!(refusal(folder.path()).contains("written by version 0.0.9"), "{}", refusal(folder.path()));
        fs::write(&file, "anything").unwrap();
        assert!(refusal(folder.path()).contains("no model.toml of longcast"));
    }
}
