//! Every built-in forecaster keeps the laws of the trait.

use longcast::{Result, forecaster::contract, models};

#[test]
fn every_builtin_forecaster_keeps_the_contract() -> Result<()> {
    let models = models::builtin();
    for name in models.names() {
        let dir = tempfile::tempdir().expect("there is a place for temporary files");
        contract::check(&|context| models.build(name, &crate::small(name), context), dir.path())
            .map_err(|error| longcast::Error::other(format!("{name}: {error}")))?;
    }
    Ok(())
}
