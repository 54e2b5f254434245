//! Presets: hyper-parameters as a paper's scripts set them, for each data set and horizon.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Table;

use super::Params;
use crate::{Error, Result, error::explain_toml};

/// The params of one model as somebody published them.
///
/// A TOML file: `model`, `source`, `[default]`, `[dataset.X]` laid over it, and in that
/// `horizon.H` laid over both.
#[derive(Clone, Debug)]
pub struct Preset {
    pub name: String,
    /// The model's name in the registry.
    pub model: String,
    /// Where the numbers are from.
    pub source: String,
    default: Params,
    datasets: BTreeMap<String, ForDataset>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PresetFile {
    model: String,
    source: String,
    #[serde(default)]
    default: Params,
    #[serde(default)]
    dataset: BTreeMap<String, Table>,
}

#[derive(Clone, Debug)]
struct ForDataset {
    all: Params,
    horizons: BTreeMap<usize, Params>,
}

impl Preset {
    /// Reads the text of a preset file.
    ///
    /// # Errors
    /// If it says what a preset cannot say. Whether the model knows the params is not checked here.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        let file: PresetFile = toml::from_str(text)
            .map_err(|error| Error::other(format!("preset {name}: {}", explain_toml(text, &error))))?;
        let datasets = file.dataset.into_iter().map(|(dataset, table)| Ok((dataset, ForDataset::read(name, table)?)));
        Ok(Self {
            name: name.to_string(),
            model: file.model,
            source: file.source,
            default: file.default,
            datasets: datasets.collect::<Result<_>>()?,
        })
    }

    /// The params for one data set and horizon; for a data set that the preset does not name, its
    /// default.
    pub fn params(&self, dataset: &str, horizon: usize) -> Params {
        let mut params = self.default.clone();
        if let Some(layers) = self.datasets.get(dataset) {
            params = params.overlaid(&layers.all);
            if let Some(layer) = layers.horizons.get(&horizon) {
                params = params.overlaid(layer);
            }
        }
        params
    }

    /// The data sets and horizons it names, each data set with none first.
    pub fn settings(&self) -> Vec<(String, Option<usize>)> {
        let of = |(name, layers): (&String, &ForDataset)| {
            let horizons = layers.horizons.keys().map(|horizon| Some(*horizon));
            std::iter::once(None).chain(horizons).map(|horizon| (name.clone(), horizon)).collect::<Vec<_>>()
        };
        self.datasets.iter().flat_map(of).collect()
    }
}

impl ForDataset {
    fn read(preset: &str, mut table: Table) -> Result<Self> {
        let fault = |what: &str| Error::other(format!("preset {preset}: {what}"));
        let horizons = match table.remove("horizon") {
            None => Table::new(),
            Some(horizons) => horizons.try_into().map_err(|_| fault("'horizon' is not a table"))?,
        };
        let horizons = horizons.into_iter().map(|(horizon, params)| {
            let steps = horizon.parse().map_err(|_| fault(&format!("'{horizon}' is not a number of steps")))?;
            Ok((steps, params.try_into().map_err(|_| fault(&format!("horizon {horizon} is not a table")))?))
        });
        Ok(Self { horizons: horizons.collect::<Result<_>>()?, all: Params::from_type(&table)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        model = "m"
        source = "a paper"
        [default.network]
        d_model = 512
        layers = 2
        [dataset.A]
        network = { d_model = 256 }
        horizon.720.network = { layers = 3 }
    "#;

    #[test]
    fn layers_are_laid_over_one_another() -> Result<()> {
        let preset = Preset::parse("p", TEXT)?;
        let set = |assignments: &[&str]| {
            let mut params = Params::default();
            assignments.iter().for_each(|assignment| params.set(assignment).unwrap());
            params
        };
        assert_eq!(preset.params("B", 720), set(&["network.d_model=512", "network.layers=2"]));
        assert_eq!(preset.params("A", 96), set(&["network.d_model=256", "network.layers=2"]));
        assert_eq!(preset.params("A", 720), set(&["network.d_model=256", "network.layers=3"]));
        assert_eq!(preset.settings(), [("A".to_string(), None), ("A".to_string(), Some(720))]);
        Ok(())
    }

    #[test]
    fn what_is_not_a_preset_is_named() {
        let error = |text: &str| Preset::parse("p", text).unwrap_err().to_string();
        assert_eq!(
            error(&TEXT.replace("source", "sauce")),
            "preset p: line 3: unknown key 'sauce'; did you mean 'source'?"
        );
        assert_eq!(error(&TEXT.replace("720", "long")), "preset p: 'long' is not a number of steps");
    }
}
