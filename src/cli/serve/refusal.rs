//! Answers that are no forecast: a status and `{"error": "why"}`.

use axum::{
    http::{
        HeaderName, HeaderValue, StatusCode,
        header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
};
use serde_json::json;

use crate::Error;

/// Why a request is not answered as it was meant.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    message: String,
    header: Option<(HeaderName, HeaderValue)>,
}

/// Letters of a message at most: what was sent may be quoted in it, however long it is.
const LETTERS: usize = 1000;

impl Refusal {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if let Some((end, _)) = message.char_indices().nth(LETTERS) {
            message.truncate(end);
            message.push('…');
        }
        Self { status, message, header: None }
    }

    fn with(self, name: HeaderName, value: &'static str) -> Self {
        Self { header: Some((name, HeaderValue::from_static(value))), ..self }
    }

    /// What was sent cannot be read at all.
    pub fn unreadable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// What was sent can be read, but nothing can be forecast from it.
    pub fn unfit(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, message)
    }

    /// The rest of the body is not waited for, so that the connection cannot be used again.
    pub fn cut_off(status: StatusCode, message: impl Into<String>) -> Self {
        Self::new(status, message).with(CONNECTION, "close")
    }

    /// Too many at once.
    pub fn busy(message: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, format!("{message}: try again in a second")).with(RETRY_AFTER, "1")
    }

    pub fn unauthorised() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "the token is missing or wrong: send 'Authorization: Bearer <token>'")
            .with(WWW_AUTHENTICATE, "Bearer")
    }

    /// It is the server's fault.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        match error {
            Error::Shape(_) | Error::NotFinite(_) | Error::Unknown { .. } => Self::unfit(error.to_string()),
            _ => Self::failed(error.to_string()),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({"error": self.message}).to_string();
        let mut response = (self.status, [(CONTENT_TYPE, "application/json")], body).into_response();
        response.headers_mut().extend(self.header);
        response
    }
}
