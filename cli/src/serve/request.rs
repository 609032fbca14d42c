//! Reading a request: its body, and the fields in it.

use super::reply::Refusal;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_TYPE, EXPECT};
use hyper::{Request, StatusCode};
use serde_json::{Map, Value};
use std::time::Duration;
use tokio::time::timeout;

/// Largest body in bytes: that of text-embeddings-inference.
pub const BODY: usize = 2_000_000;
/// Most bytes that are read of a body that is too large.
const DROPPED: usize = 4 * BODY;
/// Time for a body.
const TIME: Duration = Duration::from_secs(10);

/// The fields of a JSON object. In memory they may be twenty times as large as the body: drop them before the request waits.
pub struct Fields(Map<String, Value>);

/// Reads the body of `request`.
///
/// # Errors
/// 408, 413, 415, 400 if it is not JSON, 422 if it is not an object.
pub async fn fields(request: Request<Incoming>) -> Result<Fields, Refusal> {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json") {
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "expected JSON: Content-Type: application/json"));
    }
    // Such a client waits for leave to send the body.
    let asks = request.headers().contains_key(EXPECT);
    let body = request.into_body();
    if asks && body.size_hint().lower() > BODY as u64 {
        return Err(too_large());
    }
    let read = timeout(TIME, read(body)).await;
    let late = |_| Refusal::new(StatusCode::REQUEST_TIMEOUT, format!("the body took more than {} s", TIME.as_secs()));
    match serde_json::from_slice(&read.map_err(late)??) {
        Ok(Value::Object(fields)) => Ok(Fields(fields)),
        Ok(_) => Err(Refusal::invalid("expected a JSON object")),
        Err(e) => Err(Refusal::new(StatusCode::BAD_REQUEST, format!("the body is not JSON: {e}"))),
    }
}

/// The bytes of a body. The rest of one that is too large is read too and dropped, up to a limit: most clients read no answer before they have sent all.
async fn read(mut body: Incoming) -> Result<Vec<u8>, Refusal> {
    let (mut all, mut seen) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let early = |_| Refusal::new(StatusCode::BAD_REQUEST, "the body ended early, or its chunks are malformed");
        let frame = frame.map_err(early)?;
        let data = frame.data_ref().map_or(&[][..], |data| data);
        seen += data.len();
        if seen <= BODY {
            all.extend_from_slice(data);
        } else if seen > DROPPED {
            break;
        }
    }
    if seen > BODY { Err(too_large()) } else { Ok(all) }
}

fn too_large() -> Refusal {
    Refusal::too_large(format!("the body has more than {BODY} bytes"))
}

impl Fields {
    /// A field; `None` if it is missing or null.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// A text that has characters.
    pub fn text(&self, name: &str) -> Result<&str, Refusal> {
        match self.get(name).map(Value::as_str) {
            Some(Some("")) => Err(Refusal::invalid(format!("\"{name}\" is empty"))),
            Some(Some(text)) => Ok(text),
            Some(None) => Err(Refusal::invalid(format!("\"{name}\" must be a string"))),
            None => Err(Refusal::invalid(format!("\"{name}\" is missing"))),
        }
    }

    /// A string that may be missing.
    pub fn string(&self, name: &str) -> Result<Option<&str>, Refusal> {
        let wrong = || Refusal::invalid(format!("\"{name}\" must be a string"));
        self.get(name).map(|value| value.as_str().ok_or_else(wrong)).transpose()
    }

    /// A truth value that may be missing.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, Refusal> {
        let wrong = || Refusal::invalid(format!("\"{name}\" must be true or false"));
        self.get(name).map(|value| value.as_bool().ok_or_else(wrong)).transpose()
    }

    /// A whole number below `end` that may be missing.
    pub fn number(&self, name: &str, end: usize) -> Result<Option<usize>, Refusal> {
        let wrong = || Refusal::invalid(format!("\"{name}\" must be a whole number from 0 to {}", end.saturating_sub(1)));
        self.get(name).map(|value| whole(value, end).ok_or_else(wrong)).transpose()
    }

    /// An object that may be missing.
    pub fn object(&self, name: &str) -> Result<Fields, Refusal> {
        match self.get(name) {
            None => Ok(Fields(Map::new())),
            Some(Value::Object(fields)) => Ok(Fields(fields.clone())),
            Some(_) => Err(Refusal::invalid(format!("\"{name}\" must be an object"))),
        }
    }
}

/// A whole number below `end`.
pub fn whole(value: &Value, end: usize) -> Option<usize> {
    value.as_u64().and_then(|number| usize::try_from(number).ok()).filter(|number| *number < end)
}
