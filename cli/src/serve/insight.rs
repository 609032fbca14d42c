//! What the page asks: every adapter's answer, integrated gradients, attention, the answer without words, and a training step.

use super::predict::{answered, ask, chosen, encode};
use super::reply::{Refusal, Reply, as_json, of};
use super::request::{Fields, whole};
use super::state::State;
use super::{Facts, Served};
use crate::step::{TEXT, side_by_side};
use hyper::StatusCode;
use hyper::body::Bytes;
use lowrank::explain::{FEWEST_STEPS, MOST_STEPS, baseline, deletions, integrated_gradients, words};
use lowrank::lora::LoraConfig;
use lowrank::metrics::argmax;
use lowrank::nn::Config;
use lowrank::train::scores;
use serde_json::{Value, json};
use tokio::sync::oneshot;

/// Steps of integrated gradients are added until the completeness gap is below this share.
const GAP: f64 = 0.01;
/// Most words of one request for deletions.
const WORDS: usize = 64;

/// Every adapter's scores for a text, and its tokens and words. Texts are cut to each model's length: the page looks at one window.
///
/// # Errors
/// 422, 424, 429.
pub async fn answers(state: &State, fields: Fields) -> Result<Reply, Refusal> {
    let text = fields.text("text")?.to_string();
    chosen(state, &fields)?;
    drop(fields);
    let mut all = Vec::new();
    for (i, facts) in state.models.iter().enumerate() {
        let (ids, truncated) = encode(state, facts, facts.cut.one_window(), &text, Some(true))?;
        let (tokens, words) = (tokens(facts, &ids), words(&facts.wordpiece, &ids));
        let words: Vec<_> = words.into_iter().map(|word| [word.start, word.end]).collect();
        let logits = ask(state, i, vec![ids]).await?.concat();
        all.push(json!({
            "name": facts.name, "labels": facts.labels, "scores": scores(facts.outputs, &logits, facts.temperature), "logits": logits,
            "tokens": tokens, "words": words, "truncated": truncated,
        }));
    }
    as_json(&json!({ "text": text, "adapters": all }))
}

/// What each token contributes to the logit of a class; without "class", of the likeliest.
///
/// # Errors
/// 422, 424, 429.
pub async fn attributions(state: &State, fields: Fields) -> Result<Reply, Refusal> {
    let (model, facts) = chosen(state, &fields)?;
    let (ids, truncated) = encode(state, facts, facts.cut.one_window(), fields.text("text")?, Some(true))?;
    let class = fields.number("class", facts.labels.len())?;
    let (blank, labels, own) = (baseline(&facts.wordpiece, &ids), facts.labels.clone(), tokens(facts, &ids));
    let found = task(state, move |models, go_on| {
        let model = &models[model].model;
        let class = match class {
            Some(class) => class,
            None => argmax(&lowrank::train::logits(model, &[&ids], 1)?.concat()),
        };
        let found = integrated_gradients(model, &ids, &blank, class, (GAP, (FEWEST_STEPS, MOST_STEPS)), go_on)?;
        Ok(found.map(|found| {
            json!({
                "tokens": own, "values": found.tokens, "class": class, "label": labels[class], "output": found.output,
                "baseline": found.baseline, "steps": found.steps, "gap": found.gap(), "complete": found.gap() < GAP, "truncated": truncated,
            })
        }))
    });
    drop(fields);
    as_json(&found.await?)
}

/// The attention of one head: for each query (row) the probability of each key (column).
///
/// # Errors
/// 422, 424, 429.
pub async fn attention(state: &State, fields: Fields) -> Result<Reply, Refusal> {
    let (model, facts) = chosen(state, &fields)?;
    let (ids, truncated) = encode(state, facts, facts.cut.one_window(), fields.text("text")?, Some(true))?;
    let layer = fields.number("layer", facts.layers)?.unwrap_or(0);
    let head = fields.number("head", facts.heads)?.unwrap_or(0);
    let own = tokens(facts, &ids);
    let found = task(state, move |models, _| {
        let mut heads = models[model].model.attention(&ids, layer)?;
        let rows = heads.swap_remove(head);
        // Five digits are enough for a picture, and a third of the bytes.
        let rounded: Vec<Vec<f64>> = rows.iter().map(|row| row.iter().map(|p| (p * 1e5).round() / 1e5).collect()).collect();
        let extra = |names: &str, all: usize| (1..=all - own.len()).map(|i| format!("{names} {i}")).chain(own.clone()).collect::<Vec<_>>();
        let (queries, keys) = (extra("prompt", rows.len()), extra("prefix", rows[0].len()));
        Ok(Some(json!({
            "queries": queries, "keys": keys, "layer": layer, "head": head, "probabilities": rounded, "truncated": truncated,
        })))
    });
    drop(fields);
    as_json(&found.await?)
}

/// The scores of a text without each of some words. "words" has their numbers, counted from 0.
///
/// # Errors
/// 413, 422, 424, 429.
pub async fn deletion(state: &State, fields: Fields) -> Result<Reply, Refusal> {
    let (model, facts) = chosen(state, &fields)?;
    let (ids, truncated) = encode(state, facts, facts.cut.one_window(), fields.text("text")?, Some(true))?;
    let all = words(&facts.wordpiece, &ids);
    let wrong = || Refusal::invalid(format!("\"words\" must be a list of whole numbers below {}, the number of words", all.len()));
    let list = fields.get("words").and_then(Value::as_array).ok_or_else(wrong)?;
    if list.len() > WORDS {
        return Err(Refusal::too_large(format!("\"words\" has {} words; a request may have {WORDS}", list.len())));
    }
    let numbers = list.iter().map(|value| whole(value, all.len()).ok_or_else(wrong)).collect::<Result<Vec<_>, _>>()?;
    let ranges: Vec<_> = numbers.iter().map(|&i| all[i].clone()).collect();
    let (outputs, temperature) = (facts.outputs, facts.temperature);
    let names = tokens(facts, &ids);
    let found = task(state, move |models, go_on| {
        let model = &models[model].model;
        let whole = scores(outputs, &lowrank::train::logits(model, &[&ids], 1)?.concat(), temperature);
        let mut without = Vec::new();
        for (range, number) in ranges.iter().zip(&numbers) {
            if !go_on() {
                return Ok(None);
            }
            let found = scores(outputs, &deletions(model, &ids, std::slice::from_ref(range))?.concat(), temperature);
            without.push(json!({ "word": number, "text": names[range.clone()].concat().replace("##", ""), "scores": found }));
        }
        Ok(Some(json!({ "scores": whole, "without": without, "truncated": truncated })))
    });
    drop(fields);
    as_json(&found.await?)
}

/// One training step with LoRA, and one with full fine-tuning. Computed once.
///
/// # Errors
/// 404 if there is no base, 424, 429.
pub async fn step(state: &State) -> Result<Reply, Refusal> {
    if let Some(kept) = state.step.get() {
        return Ok(of(kept.clone(), "application/json"));
    }
    let missing = || Refusal::new(StatusCode::NOT_FOUND, "no model is served: start the server with --model");
    let base = state.options.base.clone().ok_or_else(missing)?;
    let found = task(state, move |_, _| {
        let targets = Config::open(&base)?.architecture.default_targets();
        let steps = side_by_side(&base, &[TEXT.to_string()], LoraConfig::new(8, &targets))?;
        Ok(Some(serde_json::to_value(steps).map_err(|e| lowrank::Error::invalid(format!("json: {e}")))?))
    });
    let bytes = Bytes::from(found.await?.to_string());
    Ok(of(state.step.get_or_init(|| bytes).clone(), "application/json"))
}

/// The tokens of ids, as texts.
fn tokens(facts: &Facts, ids: &[u32]) -> Vec<String> {
    ids.iter().map(|&id| facts.wordpiece.token(id).unwrap_or_default().to_string()).collect()
}

/// Runs `work` in the engine. Its second argument says whether to go on; if not, `work` returns `None`.
async fn task(
    state: &State,
    work: impl FnOnce(&[Served], &mut dyn FnMut() -> bool) -> lowrank::Result<Option<Value>> + Send + 'static,
) -> Result<Value, Refusal> {
    let (answer, found) = oneshot::channel();
    let queued = state.queue.push_task(Box::new(move |models, go_on| {
        if answer.is_closed() {
            return;
        }
        let done = work(models, &mut || go_on() && !answer.is_closed());
        let done = done.map_err(|e| e.to_string()).and_then(|done| done.ok_or_else(|| "the server stops".to_string()));
        // An error means that nobody waits any more.
        let _ = answer.send(done);
    }));
    answered(queued, found).await
}
