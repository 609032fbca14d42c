//! `POST /predict`, as text-embeddings-inference 1.x defines it for classification (its `router/src/http/types.rs`), and `POST /` for the client of
//! `huggingface_hub`.

use super::Facts;
use super::queue::Texts;
use super::reply::{Refusal, Reply, as_json};
use super::request::Fields;
use super::state::State;
use hyper::StatusCode;
use hyper::header::{HeaderName, HeaderValue};
use lowrank::cut::{Cut, Windows};
use lowrank::nn::Outputs;
use lowrank::train::scores;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::oneshot;

/// Most texts of a request, as in text-embeddings-inference.
pub const TEXTS: usize = 32;

/// One class of an answer.
#[derive(Serialize)]
struct Prediction<'a> {
    score: f64,
    label: &'a str,
}

/// `POST /predict`: a list of predictions for one text, a list of such lists for a batch.
///
/// # Errors
/// 413, 422, 424, 429.
pub async fn predict(state: &State, fields: Fields) -> Result<Reply, Refusal> {
    let (texts, batch) = inputs(&fields, false)?;
    let raw = fields.flag("raw_scores")?.unwrap_or(false);
    if fields.string("truncation_direction")?.is_some_and(|side| !side.eq_ignore_ascii_case("right")) {
        return Err(Refusal::invalid("\"truncation_direction\" must be \"Right\": texts are cut as in training"));
    }
    let (model, facts) = chosen(state, &fields)?;
    let wanted = if raw { Outputs::Numbers } else { facts.outputs };
    let truncate = fields.flag("truncate")?;
    drop(fields);
    let (logits, truncated) = logits(state, model, &texts, truncate).await?;
    let rows: Vec<Vec<Prediction>> = logits.iter().map(|row| ranked(facts, &scores(wanted, row, facts.temperature))).collect();
    let reply = match &rows[..] {
        [row] if !batch => as_json(row)?,
        _ => as_json(&rows)?,
    };
    Ok(with_truncated(reply, &truncated))
}

/// `POST /`, for `InferenceClient(base_url).text_classification`: always a list of lists.
///
/// # Errors
/// 413, 422, 424, 429.
pub async fn hub(state: &State, fields: Fields) -> Result<Reply, Refusal> {
    let (texts, _) = inputs(&fields, true)?;
    let parameters = fields.object("parameters")?;
    let (model, facts) = chosen(state, &fields)?;
    let wanted = match parameters.string("function_to_apply")? {
        None => facts.outputs,
        Some("softmax") => Outputs::Classes,
        Some("sigmoid") => Outputs::Labels,
        Some("none") => Outputs::Numbers,
        Some(_) => return Err(Refusal::invalid("\"function_to_apply\" must be \"softmax\", \"sigmoid\" or \"none\"")),
    };
    let most = parameters.number("top_k", usize::MAX)?.unwrap_or(usize::MAX);
    let truncate = fields.flag("truncate")?.or(parameters.flag("truncate")?);
    drop((fields, parameters));
    let (logits, truncated) = logits(state, model, &texts, truncate).await?;
    let first = |row: &Vec<f64>| ranked(facts, &scores(wanted, row, facts.temperature)).into_iter().take(most).collect();
    let rows: Vec<Vec<Prediction>> = logits.iter().map(first).collect();
    Ok(with_truncated(as_json(&rows)?, &truncated))
}

/// The texts of a request, and whether they are a batch. `strings`: a list of strings is a batch of texts; else it is one text, or a pair of texts.
fn inputs(fields: &Fields, strings: bool) -> Result<(Vec<String>, bool), Refusal> {
    const FORMS: &str = "\"inputs\" must be a string, or a batch [[\"one text\"], [\"another\"]]";
    let wrong = || Refusal::invalid(FORMS);
    let pair = || Refusal::invalid(format!("\"inputs\" has a pair of texts, but the model classifies single texts: {FORMS}"));
    let string = |value: &Value| value.as_str().map(String::from).ok_or_else(wrong);
    let item = |value: &Value| match value {
        Value::String(text) if strings => Ok(text.clone()),
        Value::Array(one) if one.len() == 1 => string(&one[0]),
        Value::Array(two) if two.len() == 2 => Err(pair()),
        _ => Err(wrong()),
    };
    let (texts, batch) = match fields.get("inputs").ok_or_else(|| Refusal::invalid("\"inputs\" is missing"))? {
        Value::String(text) => (vec![text.clone()], false),
        Value::Array(all) if all.is_empty() => return Err(Refusal::invalid("\"inputs\" is empty")),
        Value::Array(all) if all.len() > TEXTS => {
            return Err(Refusal::too_large(format!("\"inputs\" has {} texts; a request may have {TEXTS}", all.len())));
        }
        Value::Array(all) if !strings && all.iter().all(Value::is_string) => match &all[..] {
            [text] => (vec![string(text)?], false),
            [_, _] => return Err(pair()),
            _ => return Err(wrong()),
        },
        Value::Array(all) => (all.iter().map(item).collect::<Result<_, _>>()?, true),
        _ => return Err(wrong()),
    };
    match texts.iter().position(String::is_empty) {
        Some(i) => Err(Refusal::invalid(format!("text {} of \"inputs\" is empty", i + 1))),
        None => Ok((texts, batch)),
    }
}

/// The model that the field "adapter" names, else the first.
///
/// # Errors
/// If there is none of that name.
pub fn chosen<'s>(state: &'s State, fields: &Fields) -> Result<(usize, &'s Facts), Refusal> {
    let wanted = fields.string("adapter")?;
    let found = state.models.iter().enumerate().find(|(_, model)| wanted.is_none_or(|name| name == model.name));
    found.ok_or_else(|| match state.models.is_empty() {
        true => Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "no model is served: start the server with --model"),
        false => Refusal::invalid("\"adapter\" is none of the names in /info"),
    })
}

/// The ids of a text, cut as `cut` says, and whether it was cut. `truncate`: what to do if it is too long.
///
/// # Errors
/// 413 if it is too long and may not be cut.
pub fn encode(state: &State, facts: &Facts, cut: Cut, text: &str, truncate: Option<bool>) -> Result<(Vec<u32>, bool), Refusal> {
    let (ids, was_cut) = facts.wordpiece.encode_and_tell(text, cut);
    if was_cut && !truncate.unwrap_or(state.options.auto_truncate) {
        let most = cut.longest();
        return Err(Refusal::too_large(format!("a text has more than {most} tokens: shorten it, or send \"truncate\": true")));
    }
    Ok((ids, was_cut))
}

/// The logits `[N][C]` of texts, and which texts were cut.
async fn logits(state: &State, model: usize, texts: &[String], truncate: Option<bool>) -> Result<(Vec<Vec<f64>>, Vec<usize>), Refusal> {
    let facts = &state.models[model];
    let all = texts.iter().map(|text| encode(state, facts, facts.cut, text, truncate)).collect::<Result<Vec<_>, _>>()?;
    let truncated = all.iter().enumerate().filter(|(_, (_, cut))| *cut).map(|(i, _)| i).collect();
    let windows = Windows::of(&all.iter().map(|(ids, _)| &ids[..]).collect::<Vec<_>>(), facts.cut.window());
    let ids = windows.sequences().into_iter().map(|window| window.ids.to_vec()).collect();
    Ok((windows.mean(ask(state, model, ids).await?), truncated))
}

/// The logits `[N][C]` of token ids, from the engine.
///
/// # Errors
/// 424 if the engine fails, 429 if the queue is full.
pub async fn ask(state: &State, model: usize, ids: Vec<Vec<u32>>) -> Result<Vec<Vec<f64>>, Refusal> {
    let (answer, found) = oneshot::channel();
    answered(state.queue.push_texts(Texts { model, ids, answer }), found).await
}

/// What the engine answers to a request, which is `queued` unless the queue was full.
///
/// # Errors
/// 424 if the engine fails, 429 if the queue was full.
pub async fn answered<T>(queued: bool, found: oneshot::Receiver<Result<T, String>>) -> Result<T, Refusal> {
    if !queued {
        return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, "too many requests wait: try again later"));
    }
    let found = found.await.unwrap_or_else(|_| Err("the server stops".to_string()));
    found.map_err(|problem| Refusal::new(StatusCode::FAILED_DEPENDENCY, problem))
}

/// The classes with their scores, the highest first.
fn ranked<'f>(facts: &'f Facts, scores: &[f64]) -> Vec<Prediction<'f>> {
    let mut all: Vec<Prediction> = facts.labels.iter().zip(scores).map(|(label, &score)| Prediction { score, label }).collect();
    all.sort_by(|a, b| b.score.total_cmp(&a.score));
    all
}

/// Says which texts of the request were cut, counted from 0.
fn with_truncated(mut reply: Reply, truncated: &[usize]) -> Reply {
    let list = truncated.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
    if let (false, Ok(list)) = (list.is_empty(), HeaderValue::from_str(&list)) {
        reply.headers_mut().insert(HeaderName::from_static("x-truncated"), list);
    }
    reply
}
