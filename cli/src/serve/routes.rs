//! Paths, and what answers them.

use super::reply::{Refusal, Reply, as_json, of};
use super::state::State;
use super::{engine, insight, predict, request, watch};
use hyper::body::Incoming;
use hyper::header::{ALLOW, HeaderValue};
use hyper::{Method, Request, StatusCode};
use lowrank::nn::Outputs;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Instant;

/// Every path, and the methods that it answers. HEAD is GET without a body.
const PATHS: [(&str, &str); 11] = [
    ("/", "GET, HEAD, POST"),
    ("/predict", "POST"),
    ("/info", "GET, HEAD"),
    ("/health", "GET, HEAD"),
    ("/metrics", "GET, HEAD"),
    ("/openapi.json", "GET, HEAD"),
    ("/api/answers", "POST"),
    ("/api/attributions", "POST"),
    ("/api/attention", "POST"),
    ("/api/deletion", "POST"),
    ("/api/step", "GET, HEAD"),
];
/// Only while a run is watched.
const WATCH: (&str, &str) = ("/api/watch", "GET, HEAD");

/// The answer to a request.
pub async fn answer(state: &Arc<State>, request: Request<Incoming>) -> Reply {
    let started = Instant::now();
    let known = PATHS.iter().chain([&WATCH]).find(|(path, _)| *path == request.uri().path());
    let path = known.map_or("other", |(path, _)| path);
    let reply = match known {
        Some((path, methods)) => allowed(state, request, path, methods).await,
        None => state.guard.check(&request.into_parts().0).and(Err(Refusal::new(StatusCode::NOT_FOUND, "there is nothing at this path"))),
    };
    let reply = reply.unwrap_or_else(Refusal::reply);
    state.metrics.request(path, reply.status().as_u16(), started.elapsed());
    reply
}

/// The answer to a request for a known path.
async fn allowed(state: &Arc<State>, request: Request<Incoming>, path: &str, methods: &'static str) -> Result<Reply, Refusal> {
    let (parts, body) = request.into_parts();
    state.guard.check(&parts)?;
    if !methods.split(", ").any(|method| method == parts.method.as_str()) {
        let mut reply = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, format!("this path answers {methods}")).reply();
        reply.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
        return Ok(reply);
    }
    if parts.method != Method::POST {
        return fixed(state, path).await;
    }
    let fields = request::fields(Request::from_parts(parts, body)).await?;
    match path {
        "/" => predict::hub(state, fields).await,
        "/predict" => predict::predict(state, fields).await,
        "/api/answers" => insight::answers(state, fields).await,
        "/api/attributions" => insight::attributions(state, fields).await,
        "/api/attention" => insight::attention(state, fields).await,
        _ => insight::deletion(state, fields).await,
    }
}

/// The answer to a request without a body.
async fn fixed(state: &Arc<State>, path: &str) -> Result<Reply, Refusal> {
    match path {
        "/" => Ok(state.page.reply()),
        "/info" => as_json(&info(state)),
        "/health" => Ok(of("", "text/plain; charset=utf-8")),
        "/metrics" => Ok(of(state.metrics.text(&state.queue), "text/plain; version=0.0.4; charset=utf-8")),
        "/openapi.json" => Ok(of(include_str!("openapi.json"), "application/json")),
        "/api/step" => insight::step(state).await,
        _ => match &state.options.watch {
            Some(folder) => as_json(&watch::look_on_thread(folder, &state.watching).await?),
            None => Err(Refusal::new(StatusCode::NOT_FOUND, "no run is watched: start the server with --watch OUT")),
        },
    }
}

/// Facts about the server, with the names of text-embeddings-inference where it has them.
fn info(state: &State) -> Value {
    let adapters = state.models.iter().map(|model| {
        let kind = match model.outputs {
            Outputs::Classes => "classes",
            Outputs::Labels => "labels",
            Outputs::Numbers => "numbers",
        };
        json!({
            "name": model.name, "labels": model.labels, "outputs": kind, "max_input_length": model.cut.longest(),
            "layers": model.layers, "heads": model.heads,
        })
    });
    let first = state.models.first();
    let labels = || first.iter().flat_map(|model| model.labels.iter().enumerate());
    let by_id: Map<String, Value> = labels().map(|(i, label)| (i.to_string(), json!(label))).collect();
    let by_label: Map<String, Value> = labels().map(|(i, label)| (label.clone(), json!(i))).collect();
    json!({
        "model_id": first.map(|model| &model.name),
        "model_sha": null,
        "model_dtype": state.options.dtype,
        "model_type": { "classifier": { "id2label": by_id, "label2id": by_label } },
        "max_concurrent_requests": state.options.waiting,
        "max_input_length": first.map_or(0, |model| model.cut.longest()),
        "max_batch_tokens": engine::TOKENS,
        "max_batch_requests": null,
        "max_client_batch_size": predict::TEXTS,
        "auto_truncate": state.options.auto_truncate,
        "tokenization_workers": 1,
        "version": env!("CARGO_PKG_VERSION"),
        "adapters": adapters.collect::<Vec<_>>(),
        "watching": state.options.watch.is_some(),
    })
}
