//! Hyper-parameters as a table: laid over one another, set by path, read into a type.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use toml::{Table, Value};

use crate::{Error, Result, error::explain};

/// Hyper-parameters by name, possibly nested; what is not named keeps the model's default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Params(Table);

impl Params {
    /// The table that `values` makes.
    ///
    /// # Errors
    /// If `values` is not a struct or map of TOML's types.
    pub fn from_type(values: &impl Serialize) -> Result<Self> {
        Table::try_from(values).map(Self).map_err(|error| Error::other(error.to_string()))
    }

    /// These params with those of `upper` laid over them, table by table.
    pub fn overlaid(mut self, upper: &Self) -> Self {
        overlay(&mut self.0, &upper.0);
        self
    }

    /// Sets one value from text such as `penalty=0.1` or `network.d_model=128`.
    ///
    /// The value is read as TOML; what TOML cannot read is taken as a string, so that
    /// `level=last` needs no quotes.
    ///
    /// # Errors
    /// If there is no `=`, or a part of the path is a value already.
    pub fn set(&mut self, assignment: &str) -> Result<()> {
        let (path, value) =
            assignment.split_once('=').ok_or_else(|| Error::other(format!("'{assignment}' is not key=value")))?;
        let value = format!("value = {value}")
            .parse::<Table>()
            .ok()
            .and_then(|mut table| table.remove("value"))
            .unwrap_or_else(|| Value::String(value.to_string()));
        let (parents, key) = path.rsplit_once('.').map_or((None, path), |(parents, key)| (Some(parents), key));
        let mut table = &mut self.0;
        for parent in parents.into_iter().flat_map(|parents| parents.split('.')) {
            table = table
                .entry(parent)
                .or_insert_with(|| Value::Table(Table::new()))
                .as_table_mut()
                .ok_or_else(|| Error::other(format!("'{parent}' in '{path}' is a value, not a table")))?;
        }
        table.insert(key.to_string(), value);
        Ok(())
    }

    /// Reads the table into the params type of `model`.
    ///
    /// # Errors
    /// If a key is unknown (with a suggestion) or a value has the wrong type.
    pub fn read<P: DeserializeOwned>(&self, model: &str) -> Result<P> {
        self.0.clone().try_into().map_err(|error: toml::de::Error| Error::params(model, explain(error.message())))
    }
}

fn overlay(lower: &mut Table, upper: &Table) {
    for (key, value) in upper {
        match (lower.get_mut(key), value) {
            (Some(Value::Table(lower)), Value::Table(upper)) => overlay(lower, upper),
            _ => {
                lower.insert(key.clone(), value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Example {
        penalty: f64,
        level: String,
        network: Network,
    }

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Network {
        d_model: usize,
        heads: usize,
    }

    #[test]
    fn values_are_set_by_path() -> Result<()> {
        let mut params = Params::default();
        for assignment in ["penalty=0.5", "level=last", "network.d_model=128"] {
            params.set(assignment)?;
        }
        let expected = Example { penalty: 0.5, level: "last".into(), network: Network { d_model: 128, heads: 0 } };
        assert_eq!(params.read::<Example>("example")?, expected);
        Ok(())
    }

    #[test]
    fn upper_values_win_and_lower_ones_stay() -> Result<()> {
        let (mut lower, mut upper) = (Params::default(), Params::default());
        lower.set("network.d_model=1")?;
        lower.set("network.heads=2")?;
        upper.set("network.d_model=3")?;
        let merged: Example = lower.overlaid(&upper).read("example")?;
        assert_eq!(merged.network, Network { d_model: 3, heads: 2 });
        Ok(())
    }

    #[test]
    fn an_unknown_key_is_named_with_a_suggestion() -> Result<()> {
        let mut params = Params::default();
        params.set("penatly=1")?;
        let error = params.read::<Example>("ridge").unwrap_err();
        assert_eq!(error.to_string(), "ridge: unknown key 'penatly'; did you mean 'penalty'?");
        Ok(())
    }

    #[test]
    fn a_wrong_type_is_an_error() -> Result<()> {
        let mut params = Params::default();
        params.set("penalty=much")?;
        assert!(params.read::<Example>("ridge").unwrap_err().to_string().contains("expected"));
        assert!(params.set("penalty.x=1").is_err());
        assert!(params.set("penalty").is_err());
        Ok(())
    }
}
