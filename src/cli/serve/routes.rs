//! The routes, and what holds for all of them: the token, the headers, the log.

use std::{io::Write, net::SocketAddr, sync::Arc, time::Instant};

use axum::{
    Extension, Router,
    body::Body,
    extract::{Query, Request, State, rejection::QueryRejection},
    http::{
        HeaderMap, HeaderValue, Method, StatusCode,
        header::{
            AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY,
            X_CONTENT_TYPE_OPTIONS,
        },
    },
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{answer, answer::Form, body::Limits, page, pool::Pool, refusal::Refusal, rows, rows::Kind};
use crate::{Result, forecaster::Pipeline};

const HEALTH: &str = "/health";

/// What all requests share.
pub struct Service {
    pipeline: Arc<Pipeline>,
    pool: Pool,
    limits: Limits,
    token: Option<Token>,
    quiet: bool,
    page: page::Page,
    openapi: String,
}

impl Service {
    /// # Errors
    /// If the page cannot be made.
    pub fn new(pipeline: Pipeline, pool: Pool, limits: Limits, token: Option<Token>, quiet: bool) -> Result<Self> {
        let (page, openapi) = (page::Page::new()?, page::openapi()?);
        Ok(Self { pipeline: Arc::new(pipeline), pool, limits, token, quiet, page, openapi })
    }
}

/// A token that is compared in a time that does not tell how much of it is right.
pub struct Token([u8; 32]);

impl Token {
    pub fn new(token: &str) -> Self {
        Self(Sha256::digest(token).into())
    }

    /// Whether `headers` carry it.
    fn is_in(&self, headers: &HeaderMap) -> bool {
        let sent = headers.get(AUTHORIZATION).and_then(|value| value.as_bytes().split_at_checked("Bearer ".len()));
        sent.is_some_and(|(scheme, token)| {
            // Hashes are of one length, whatever is sent.
            scheme.eq_ignore_ascii_case(b"Bearer ") && bool::from(self.0[..].ct_eq(&Sha256::digest(token)[..]))
        })
    }
}

/// The client's address.
#[derive(Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// All routes there are; `templates/openapi.json` describes them.
pub fn router(service: Arc<Service>) -> Router {
    Router::new()
        .route("/", get(index))
        .route(HEALTH, get(health))
        .route("/model", get(model))
        .route("/openapi.json", get(openapi))
        .route("/forecast", post(forecast))
        .fallback(async || {
            Refusal::new(StatusCode::NOT_FOUND, "there is nothing here: GET /openapi.json says what there is")
        })
        .method_not_allowed_fallback(async |method: Method| {
            let message = format!("{method} is not a method of this route: the header Allow says which are");
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, message)
        })
        .layer(middleware::from_fn_with_state(Arc::clone(&service), admit))
        .layer(middleware::from_fn_with_state(Arc::clone(&service), log))
        .with_state(service)
}

/// Lets in who has the token, and says to browsers what an answer may do.
async fn admit(State(service): State<Arc<Service>>, request: Request, next: Next) -> Response {
    let open = request.uri().path() == HEALTH;
    let mut response = match &service.token {
        Some(token) if !open && !token.is_in(request.headers()) => Refusal::unauthorised().into_response(),
        _ => next.run(request).await,
    };
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    // A plot that is opened by itself has its rules in a style element.
    let nothing = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";
    headers.entry(CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static(nothing));
    response
}

/// One line a request, on stderr.
async fn log(
    State(service): State<Arc<Service>>,
    Extension(Peer(peer)): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    if service.quiet {
        return next.run(request).await;
    }
    let (method, path, start) = (request.method().clone(), request.uri().path().to_string(), Instant::now());
    let response = next.run(request).await;
    let (status, time) = (response.status().as_u16(), start.elapsed().as_secs_f64() * 1e3);
    // Nobody to read it is no reason to end.
    let _ = writeln!(std::io::stderr(), "{peer} {method} {path} {status} {time:.1} ms");
    response
}

fn with_type(content_type: &'static str, body: impl Into<Body>) -> Response {
    ([(CONTENT_TYPE, content_type)], body.into()).into_response()
}

async fn index(State(service): State<Arc<Service>>) -> Response {
    let policy = service.page.policy.clone();
    let headers =
        [(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")), (CONTENT_SECURITY_POLICY, policy)];
    (headers, service.page.html.clone()).into_response()
}

async fn health() -> Response {
    with_type("application/json", json!({"status": "ok"}).to_string())
}

async fn openapi(State(service): State<Arc<Service>>) -> Response {
    with_type("application/json", service.openapi.clone())
}

async fn model(State(service): State<Arc<Service>>) -> Result<Response, Refusal> {
    let pipeline = &service.pipeline;
    let shape = pipeline.shape();
    let params: Value = serde_json::to_value(pipeline.params()).map_err(|error| Refusal::failed(error.to_string()))?;
    let model = json!({
        "model": pipeline.model(),
        "params": params,
        "lookback": shape.lookback,
        "horizon": shape.horizon,
        "variates": pipeline.variates(),
        "step": pipeline.step(),
        "needs_timestamps": shape.time_features > 0,
        "fitted_with": pipeline.version(),
        "version": env!("CARGO_PKG_VERSION"),
    });
    Ok(with_type("application/json", model.to_string()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// Which variate is plotted.
    variate: Option<String>,
}

async fn forecast(
    State(service): State<Arc<Service>>,
    query: Result<Query<Asked>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let kind = Kind::of(&headers)?;
    let form = Form::of(&headers);
    let Query(Asked { variate }) = query.map_err(|error| Refusal::unreadable(error.body_text()))?;
    let received = service.limits.read(body).await?;
    let pipeline = Arc::clone(&service.pipeline);
    let answer = service.pool.run(move || {
        let recent = rows::series(kind, received.bytes, &pipeline)?;
        answer::forecast(&pipeline, &recent, form, variate.as_deref())
    });
    Ok(with_type(form.content_type(), answer.await??))
}
