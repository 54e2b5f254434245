//! How a data set is prepared and scored: what papers did differently, as data.

use std::{fs, path::Path};

use serde::{Deserialize, Deserializer, Serialize};

use crate::{
    Error, Result,
    data::{Calendar, SplitRule},
    error::explain_toml,
};

/// How a data set is prepared and which of its windows are scored. The default is strict: nothing dropped,
/// nothing taken from elsewhere than the data set itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Protocol {
    /// Score only as many test windows as fill batches of this size, as papers did whose test
    /// loader dropped the last incomplete batch; 0 scores every window.
    pub drop_last: usize,
    /// Choose and stop by as many validation windows as fill batches of this size, other ones in each epoch, as
    /// papers did whose validation loader shuffled and dropped; 0 takes every window.
    #[serde(skip_serializing_if = "is_zero")]
    pub valid_drop_last: usize,
    /// The calendar features of every data set; without it those of the data set's own step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calendar: Option<Calendar>,
    /// How rows are divided; without it as the manifest says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<SplitRule>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// A protocol with a name.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NamedProtocol {
    pub name: String,
    /// What it does, and who did it.
    pub about: String,
    pub protocol: Protocol,
}

/// What a file of `protocols/` says.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProtocolFile {
    about: String,
    #[serde(default)]
    protocol: Protocol,
}

const BUILTIN: [(&str, &str); 5] = [
    ("strict", include_str!("../../protocols/strict.toml")),
    ("drop-last-32", include_str!("../../protocols/drop-last-32.toml")),
    ("hourly-calendar", include_str!("../../protocols/hourly-calendar.toml")),
    ("dropped-validation-32", include_str!("../../protocols/dropped-validation-32.toml")),
    ("informer", include_str!("../../protocols/informer.toml")),
];

impl NamedProtocol {
    /// The protocols longcast itself knows, strict first.
    ///
    /// # Errors
    /// None in a build that passes its tests: the texts are compiled in.
    pub fn builtin() -> Result<Vec<Self>> {
        BUILTIN
            .iter()
            .map(|(name, text)| Self::parse(name, text).map_err(|error| Error::file(Path::new(name), error)))
            .collect()
    }

    /// One of [`builtin`](Self::builtin), by its name.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn named(name: &str) -> Result<Self> {
        let all = Self::builtin()?;
        let names: Vec<String> = all.iter().map(|protocol| protocol.name.clone()).collect();
        let found = all.into_iter().find(|protocol| protocol.name == name);
        found.ok_or_else(|| Error::unknown("protocol", name, names.iter().map(String::as_str)))
    }

    /// Reads a file such as those of `protocols/`.
    ///
    /// # Errors
    /// If it cannot be read, or says what a protocol cannot say.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
        let name = path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        Self::parse(&name, &text).map_err(|error| Error::file(path, error))
    }

    fn parse(name: &str, text: &str) -> Result<Self> {
        let file: ProtocolFile = toml::from_str(text).map_err(|error| Error::other(explain_toml(text, &error)))?;
        Ok(Self { name: name.into(), about: file.about.trim().replace('\n', " "), protocol: file.protocol })
    }
}

impl Protocol {
    /// The part that is still to be done when the data is prepared: a record tells calendar and split with its
    /// data, as they came out.
    #[must_use]
    pub fn of_windows(&self) -> Self {
        Self { calendar: None, split: None, ..self.clone() }
    }

    /// Whether data prepared by one is prepared as the other asks.
    pub fn prepares_like(&self, other: &Self) -> bool {
        (&self.calendar, &self.split) == (&other.calendar, &other.split)
    }

    /// Reads what stands in a suite: the name of a protocol, or a table of settings.
    pub(super) fn named_or_table<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Either;

        impl<'de> serde::de::Visitor<'de> for Either {
            type Value = Protocol;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("the name of a protocol, or a table of its settings")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> std::result::Result<Protocol, E> {
                NamedProtocol::named(name).map(|named| named.protocol).map_err(E::custom)
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> std::result::Result<Protocol, A::Error> {
                Protocol::deserialize(serde::de::value::MapAccessDeserializer::new(map))
            }
        }

        deserializer.deserialize_any(Either)
    }

    /// The same where it need not be given.
    pub(super) fn perhaps<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<Self>, D::Error> {
        Self::named_or_table(deserializer).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_say_what_their_names_say() -> Result<()> {
        assert_eq!(NamedProtocol::named("strict")?.protocol, Protocol::default());
        assert_eq!(NamedProtocol::builtin()?[0].name, "strict");
        assert_eq!(NamedProtocol::named("drop-last-32")?.protocol.drop_last, 32);
        assert_eq!(NamedProtocol::named("hourly-calendar")?.protocol.calendar, Some(Calendar::Hourly));
        assert_eq!(NamedProtocol::named("dropped-validation-32")?.protocol.valid_drop_last, 32);
        let error = NamedProtocol::named("strickt").unwrap_err().to_string();
        assert!(error.contains("did you mean 'strict'?"), "{error}");
        Ok(())
    }

    #[test]
    fn every_file_is_compiled_in() {
        let files = fs::read_dir("protocols").unwrap();
        let mut files: Vec<String> =
            files.map(|file| file.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned()).collect();
        files.sort();
        let mut names = BUILTIN.map(|(name, _)| name.to_string());
        names.sort();
        assert_eq!(files, names);
    }

    #[test]
    fn what_is_no_protocol_is_named_with_its_line() {
        let error = NamedProtocol::parse("p", "about = \"x\"\n[protocol]\ndrop_first = 3\n").unwrap_err().to_string();
        assert!(error.contains("line 3: unknown key 'drop_first'; did you mean 'drop_last'?"), "{error}");
    }

    #[test]
    fn a_strict_protocol_is_written_as_it_always_was() -> serde_json::Result<()> {
        assert_eq!(serde_json::to_string(&Protocol::default())?, r#"{"drop_last":0}"#);
        Ok(())
    }
}
