//! The page to try a model on, and the description of the routes.

use askama::Template;
use axum::http::HeaderValue;
use base64::{Engine, prelude::BASE64_STANDARD};
use sha2::{Digest, Sha256};

use crate::{Error, Result};

const STYLE: &str = concat!(include_str!("../../../templates/style.css"), include_str!("../../../templates/serve.css"));
const SCRIPT: &str = include_str!("../../../templates/serve.js");
const OPENAPI: &str = include_str!("../../../templates/openapi.json");

#[derive(Template)]
#[template(path = "serve.html")]
struct Markup {
    style: &'static str,
    script: &'static str,
    version: &'static str,
}

/// A page that needs nothing but this server.
pub struct Page {
    pub html: String,
    /// What it may do: run its own script, show its own plots, ask its own server.
    pub policy: HeaderValue,
}

impl Page {
    pub fn new() -> Result<Self> {
        let html = Markup { style: STYLE, script: SCRIPT, version: env!("CARGO_PKG_VERSION") }.render();
        let html = html.map_err(|error| Error::other(format!("cannot make the page: {error}")))?;
        let hash = |text: &str| format!("'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(text)));
        let policy = format!(
            "default-src 'none'; style-src {}; script-src {}; img-src blob: data:; connect-src 'self'; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            hash(STYLE),
            hash(SCRIPT)
        );
        Ok(Self { html, policy: HeaderValue::try_from(policy).expect("hashes in base64 are plain text") })
    }
}

/// The description, with the version of this build.
///
/// # Errors
/// If it is no JSON.
pub fn openapi() -> Result<String> {
    let mut described: serde_json::Value =
        serde_json::from_str(OPENAPI).map_err(|error| Error::other(format!("openapi.json: {error}")))?;
    described["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    Ok(described.to_string())
}
