//! Answers. Each but the page is JSON or plain text, so that no browser takes what somebody sent for HTML.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Response, StatusCode, header};
use serde::Serialize;
use serde_json::json;

/// An answer.
pub type Reply = Response<Full<Bytes>>;

/// Why a request is not answered. `kind` is one of the error types of text-embeddings-inference.
#[derive(Debug)]
pub struct Refusal {
    pub status: StatusCode,
    pub kind: &'static str,
    pub reason: String,
}

impl Refusal {
    pub fn new(status: StatusCode, reason: impl Into<String>) -> Refusal {
        let kind = match status {
            StatusCode::TOO_MANY_REQUESTS => "Overloaded",
            StatusCode::FAILED_DEPENDENCY | StatusCode::INTERNAL_SERVER_ERROR => "Backend",
            StatusCode::SERVICE_UNAVAILABLE => "Unhealthy",
            _ => "Validation",
        };
        Refusal { status, kind, reason: reason.into() }
    }

    /// 422: the request is JSON, but not what is expected.
    pub fn invalid(reason: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, reason)
    }

    /// 413: a limit is exceeded.
    pub fn too_large(reason: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, reason)
    }

    /// The answer.
    pub fn reply(self) -> Reply {
        let body = json!({ "error": self.reason, "error_type": self.kind }).to_string();
        let mut reply = of(body, "application/json");
        *reply.status_mut() = self.status;
        let advice = match self.status {
            StatusCode::UNAUTHORIZED => Some((header::WWW_AUTHENTICATE, "Bearer")),
            StatusCode::TOO_MANY_REQUESTS => Some((header::RETRY_AFTER, "1")),
            // The rest of a body that was not read cannot be told from a next request.
            StatusCode::PAYLOAD_TOO_LARGE | StatusCode::REQUEST_TIMEOUT => Some((header::CONNECTION, "close")),
            _ => None,
        };
        if let Some((name, value)) = advice {
            reply.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        reply
    }
}

/// An answer of this content.
pub fn of(body: impl Into<Bytes>, content_type: &'static str) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    for (name, value) in [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        reply.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    reply
}

/// An answer in JSON.
///
/// # Errors
/// If a value has no form in JSON.
pub fn as_json(value: &impl Serialize) -> Result<Reply, Refusal> {
    match serde_json::to_vec(value) {
        Ok(body) => Ok(of(body, "application/json")),
        Err(e) => Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, format!("json: {e}"))),
    }
}
