//! What can go wrong, with the facts in fields: the thing, the value, the remedy.

use std::{
    fmt,
    ops::Range,
    path::{Path, PathBuf},
};

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A name that is not in the list it was looked up in.
    #[error("no {kind} named '{name}'{hint}")]
    Unknown { kind: &'static str, name: String, hint: Hint },

    /// A file that cannot be used as a whole.
    #[error("{}: {message}", file.display())]
    File { file: PathBuf, message: String },

    /// A file that cannot be used because of one of its lines (counted from 1).
    #[error("{}: line {line}: {message}", file.display())]
    Line { file: PathBuf, line: u64, message: String },

    /// The operating system refused.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },

    /// The content of a file is not what its checksum says.
    #[error(
        "{}: sha256 is {found}, but {expected} is expected: the file is damaged or another version; \
         fetch it again, or remove it from the folder",
        file.display()
    )]
    Checksum { file: PathBuf, expected: String, found: String },

    /// Not one window fits.
    #[error(
        "{series}: {} rows ({}..{}) are too few for lookback {lookback} and horizon {horizon}; \
         shorten them or use more data",
        rows.len(), rows.start, rows.end
    )]
    TooFewRows { series: String, rows: Range<usize>, lookback: usize, horizon: usize },

    /// Hyper-parameters that cannot be used.
    #[error("{model}: {message}")]
    Params { model: String, message: String },

    /// `predict` or `save` before `fit` or `load`.
    #[error("{0} has not been fitted: call fit or load first")]
    NotFitted(&'static str),

    /// Arrays that do not go together.
    #[error("{0}")]
    Shape(String),

    /// A NaN or infinite number where none may be.
    #[error("{0}")]
    NotFinite(String),

    /// Training led to a loss that is no number.
    #[error(
        "the loss is not a finite number in epoch {epoch}, step {step}, with learning rate {learning_rate}; \
         lower training.learning_rate, or set training.clip"
    )]
    Diverged { epoch: usize, step: usize, learning_rate: f64 },

    /// The caller asked to stop; nothing was recorded.
    #[error("interrupted")]
    Interrupted,

    /// Whatever a forecaster from outside this crate has to say.
    #[error(transparent)]
    Other(#[from] Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// A plain message, for callers with no better variant.
    pub fn other(message: impl Into<String>) -> Self {
        Self::Other(message.into().into())
    }

    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }

    pub(crate) fn file(file: &Path, message: impl fmt::Display) -> Self {
        Self::File { file: file.to_path_buf(), message: message.to_string() }
    }

    pub(crate) fn params(model: &str, message: impl fmt::Display) -> Self {
        Self::Params { model: model.to_string(), message: message.to_string() }
    }

    /// An unknown `name`, with the nearest of the `known` ones as a suggestion.
    pub fn unknown<'a>(kind: &'static str, name: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        Self::Unknown { kind, name: name.to_string(), hint: Hint::nearest(name, known) }
    }
}

/// The end of an "unknown name" message: a suggestion, or what there is.
#[derive(Clone, Debug)]
pub struct Hint(String);

impl Hint {
    /// "; did you mean 'x'?" when something is near, else "; known are a, b, c".
    pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        let known: Vec<&str> = known.into_iter().collect();
        let lower = name.to_lowercase();
        let near = known
            .iter()
            .map(|candidate| (strsim::jaro_winkler(&lower, &candidate.to_lowercase()), candidate))
            .filter(|(likeness, _)| *likeness > 0.8)
            .max_by(|a, b| a.0.total_cmp(&b.0));
        Self(match near {
            Some((_, candidate)) => format!("; did you mean '{candidate}'?"),
            None if known.is_empty() => String::new(),
            None => format!("; known are {}", known.join(", ")),
        })
    }
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Turns serde's "unknown field `a`, expected one of `b`, `c`" into our words, with a suggestion.
pub(crate) fn explain(message: &str) -> String {
    let message = message.trim_end();
    let mut quoted = message.split('`').skip(1).step_by(2);
    let kind = [("unknown field", "key"), ("unknown variant", "value")];
    match kind.iter().find(|(start, _)| message.starts_with(start)) {
        Some((_, kind)) => {
            let name = quoted.next().unwrap_or_default();
            format!("unknown {kind} '{name}'{}", Hint::nearest(name, quoted))
        }
        None => message.replace('\n', " "),
    }
}

/// What is wrong with the TOML `text`, and in which line.
pub(crate) fn explain_toml(text: &str, error: &toml::de::Error) -> String {
    let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
    format!("line {line}: {}", explain(error.message()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_name_is_suggested() {
        let error = Error::unknown("model", "dlinaer", ["repeat", "dlinear"]);
        assert_eq!(error.to_string(), "no model named 'dlinaer'; did you mean 'dlinear'?");
    }

    #[test]
    fn with_nothing_near_the_known_names_are_listed() {
        let error = Error::unknown("model", "xyz", ["repeat", "mean"]);
        assert_eq!(error.to_string(), "no model named 'xyz'; known are repeat, mean");
    }
}
