//! What the runs used, in words: the settings that a report lists.

use super::rows::rounded;
use super::used::UNKNOWN;
use super::{Row, RowResult};
use lowrank::{Error, Result};
use serde_json::Value;
use std::collections::BTreeSet;

/// Words for fields with a name that a reader of the report would not understand.
const NAMES: [(&str, &str); 5] = [
    ("dtype", "computed in"),
    ("lr", "learning rate"),
    ("share", "share of the training texts"),
    ("version", "lowrank"),
    ("warmup", "warm-up"),
];

/// A setting: its name, and its distinct values with the rows that have them.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// Its name.
    pub name: String,
    /// Each value with the names of its rows.
    pub values: Vec<(String, Vec<String>)>,
}

impl Setting {
    /// The value, if all rows that have this setting have the same one.
    pub fn common(&self) -> Option<&str> {
        if let [(value, _)] = &self.values[..] { Some(value) } else { None }
    }

    /// The value, or each value with its rows: `5e-3 (classification head only); 1.5e-3 (Q+V r=4, Q+V r=8)`.
    pub fn text(&self) -> String {
        let with_rows = |(value, rows): &(String, Vec<String>)| format!("{value} ({})", rows.join(", "));
        self.common().map_or_else(|| self.values.iter().map(with_rows).collect::<Vec<_>>().join("; "), String::from)
    }
}

/// All settings that the runs used, those of the recipe and of the method included: one value if the rows agree, else a value for each row.
///
/// # Errors
/// If a value cannot be written as JSON.
pub fn settings(rows: &[Row], results: &[RowResult]) -> Result<Vec<Setting>> {
    // The distinct values over the seeds, by setting and row.
    let mut by_row: Vec<((String, &str), Vec<String>)> = Vec::new();
    for result in results {
        let row = rows.iter().find(|row| row.key == result.row).map_or(&result.row, |row| &row.name);
        for (name, value) in facts(result)? {
            let values = entry(&mut by_row, (name, row.as_str()));
            if !values.contains(&value) {
                values.push(value);
            }
        }
    }
    let mut all = Vec::new();
    for ((name, row), values) in by_row {
        let rows: &mut Vec<String> = entry(entry(&mut all, name), values.join(", "));
        rows.push(row.to_string());
    }
    Ok(all.into_iter().map(|(name, values)| Setting { name, values }).collect())
}

/// The value of `key`, which is added if it is missing.
fn entry<K: PartialEq, V: Default>(list: &mut Vec<(K, V)>, key: K) -> &mut V {
    let at = list.iter().position(|(k, _)| *k == key).unwrap_or_else(|| {
        list.push((key, V::default()));
        list.len() - 1
    });
    &mut list[at].1
}

/// One line: date, version, commit and machine of the results.
pub fn origin(results: &[RowResult]) -> String {
    let list = |values: BTreeSet<&str>| values.into_iter().collect::<Vec<_>>().join(" and ");
    let used = || results.iter().filter_map(|result| result.used.as_ref());
    let finished = used().map(|used| used.finished.as_str()).filter(|date| *date != UNKNOWN).max().unwrap_or(UNKNOWN);
    format!(
        "Finished {finished} with lowrank {}, commit {}, on {}.",
        list(used().map(|used| used.version.as_str()).collect()),
        list(used().map(|used| used.commit.as_str()).collect()),
        list(results.iter().map(|result| result.machine.as_str()).collect())
    )
}

/// Names and values of all settings of a run. They are read from the serialised fields, so that no field can be forgotten.
fn facts(result: &RowResult) -> Result<Vec<(String, String)>> {
    let json = serde_json::to_value(&result.used).map_err(|e| Error::invalid(format!("settings of {}: {e}", result.row)))?;
    let mut facts = Vec::new();
    for (key, value) in json.as_object().into_iter().flatten() {
        match (key.as_str(), value) {
            ("recipe", Value::Object(recipe)) => facts.extend(recipe.iter().map(|(key, value)| (name(key), text(key, value)))),
            ("method", Value::Object(method)) => {
                let kind = text("kind", &method["kind"]);
                let own = method.iter().filter(|(key, _)| *key != "kind");
                facts.extend(own.map(|(key, value)| (format!("{kind} {}", name(key)), text(key, value))));
                facts.push(("method".to_string(), kind));
            }
            _ => facts.push((name(key), text(key, value))),
        }
    }
    facts.push(("machine".to_string(), result.machine.clone()));
    Ok(facts)
}

/// The field `key` in words.
fn name(key: &str) -> String {
    NAMES.iter().find(|(field, _)| *field == key).map_or_else(|| key.replace('_', " "), |(_, name)| name.to_string())
}

/// The value of the field `key`, for people.
fn text(key: &str, value: &Value) -> String {
    let list = |parts: Vec<String>| match (parts.is_empty(), key) {
        (true, "layers") => "all".to_string(),
        (true, _) => "none".to_string(),
        _ => parts.join(", "),
    };
    match value {
        Value::Null => "none".to_string(),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.to_string(),
        Value::Number(n) => n.as_f64().filter(|_| n.is_f64()).map_or_else(|| n.to_string(), number),
        Value::String(text) => text.clone(),
        Value::Array(values) => list(values.iter().map(element).collect()),
        Value::Object(fields) => list(fields.iter().map(|(field, value)| format!("{field}={}", text("", value))).collect()),
    }
}

/// An element of a list. A pair becomes `name=value`.
fn element(value: &Value) -> String {
    match value {
        Value::Array(pair) => pair.iter().map(element).collect::<Vec<_>>().join("="),
        other => text("", other),
    }
}

/// A number for people: `0.1`, `1.5e-3`.
pub fn number(x: f64) -> String {
    let x = rounded(x);
    if x != 0.0 && !(0.01..1e7).contains(&x.abs()) { format!("{x:e}") } else { x.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::{Findings, Provenance, Study, StudyProgress, Used, markdown, recipe_lines, report, results_json};
    use lowrank::data::{Dataset, Tokenized, WordPiece};
    use lowrank::lora::{Bias, Init, LoraConfig, Method, Placement};
    use lowrank::nn::Config;
    use lowrank::tensor::DType;
    use lowrank::train::{Recipe, Schedule, StepReport};
    use serde::Serialize;
    use std::collections::BTreeMap;
    use std::path::Path;

    struct Silent;

    impl StudyProgress for Silent {
        fn note(&mut self, _: &str) {}
        fn begin(&mut self, _: &Row, _: u64, _: usize, _: usize) {}
        fn step(&mut self, _: &StepReport) -> bool {
            true
        }
        fn test(&mut self, _: usize, _: usize) -> bool {
            true
        }
        fn end(&mut self, _: &Row, _: &RowResult, _: bool) {}
    }

    fn row(method: Method) -> Row {
        Row { key: "row".into(), name: "A row".into(), method, lr: 3e-4, stated: None, epoch_factor: 1, cache_trunk: false, subsample: 1 }
    }

    /// The result of a run with the bundled encoder, and how a study reports it: the page, `results.json` and the lines below the table.
    fn told(row: &Row, recipe: Recipe, seed: u64) -> (RowResult, String, Value, String) {
        let encoder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../assets/encoder"));
        let (config, wordpiece) = (Config::open(encoder).unwrap(), WordPiece::open(encoder).unwrap());
        let texts = ["A fine film.", "Dull.", "What a joy it was!", "I left early."];
        let texts = texts.map(String::from);
        let names = ["negative", "positive"].map(String::from);
        let data = Dataset { texts: texts.to_vec(), labels: vec![1, 0, 1, 0], label_names: names.to_vec(), ..Dataset::default() };
        let data = Tokenized::new(&data, &wordpiece, 9);
        let dir = tempfile::tempdir().unwrap();
        let study = Study {
            model: encoder,
            config: &config,
            hashes: &["a", "b", "c"].map(String::from),
            base: "BASE",
            dtype: DType::F32,
            cut: 9.into(),
            recipe,
            train: &data,
            test: &data,
            out: dir.path(),
            checkpoint_every: 100,
            place: &|_| Ok("A processor".into()),
            describe: &|_, _, _| Ok(()),
        };
        let result = study.run(row, seed, &mut Silent).unwrap().unwrap();
        // The saved result is read back unchanged.
        assert_eq!(study.run(row, seed, &mut Silent).unwrap().unwrap(), result);
        let (rows, results) = ([row.clone()], [result.clone()]);
        let provenance = Provenance::new("lowrank study".into(), Vec::new(), &rows, &results).unwrap();
        let findings = Findings {
            rows: &rows,
            results: &results,
            labels: &data.labels,
            label_names: &names,
            texts: &texts,
            claims: Vec::new(),
            changes: Vec::new(),
            neighbours: Vec::new(),
            figures: Vec::new(),
        };
        let json = results_json(&findings, &provenance, &config);
        let table = markdown(&rows, &results) + &recipe_lines(&rows, &results).unwrap();
        (result, report(&findings, &provenance), json, table)
    }

    /// The page, the file and the lines must contain each of these pairs, and each value must differ from `before`.
    fn says(told: &(RowResult, String, Value, String), before: &(RowResult, String, Value, String), pairs: &[(&str, &str)]) {
        for (name, value) in pairs {
            let cells = format!("<tr><th scope=\"row\">{name}</th><td>{value}</td></tr>");
            assert!(told.1.contains(&cells) && !before.1.contains(&cells), "report.html: {name} {value}");
            assert_eq!(told.2["made"][name], *value, "results.json");
            assert_ne!(before.2["made"][name], *value);
            let line = format!("{name} {value}");
            assert!(told.3.contains(&format!(" {line},")) || told.3.contains(&format!(" {line}.")), "table.md: {line}: {}", told.3);
        }
    }

    /// The fields of a value by name.
    fn fields(value: &impl Serialize) -> BTreeMap<String, Value> {
        serde_json::from_value(serde_json::to_value(value).unwrap()).unwrap()
    }

    #[test]
    fn every_field_of_the_recipe_that_ran_is_told() {
        let lora = || row(Method::Lora(LoraConfig::new(8, &["q_lin", "v_lin"])));
        let before = told(&lora(), Recipe::default(), 0);
        // No `..`: a new field must be reported too.
        let recipe = Recipe {
            epochs: 2,
            batch: 1,
            accumulate: 3,
            lr: 2.5e-5,
            weight_decay: 0.02,
            warmup: 0.25,
            clip: 1.5,
            seed: 7,
            group_by_length: true,
            recompute: true,
            cache_trunk: true,
            nested_rank: Some(5),
            schedule: Schedule::Cosine,
            class_weights: vec![2.5, 0.5],
            label_smoothing: 0.05,
            no_bias_decay: true,
        };
        let (new, old) = (fields(&recipe), fields(&Recipe::default()));
        assert!(old.iter().all(|(name, value)| new[name] != *value), "each field is another than by default");
        let common = [
            ("epochs", "2"),
            ("batch", "1"),
            ("accumulate", "3"),
            ("learning rate", "2.5e-5"),
            ("weight decay", "0.02"),
            ("warm-up", "0.25"),
            ("clip", "1.5"),
            ("seed", "7"),
            ("group by length", "yes"),
            ("schedule", "cosine"),
            ("class weights", "2.5, 0.5"),
            ("label smoothing", "0.05"),
            ("no bias decay", "yes"),
            ("recompute", "yes"),
        ];
        // LoRA changes the lowest layer, so there is no frozen trunk to cache. The head has no ranks to draw.
        let (ranks, trunk) = (("nested rank", "5"), ("cache trunk", "yes"));
        assert_eq!(common.len() + 2, new.len(), "and each is asked for");
        let slow = Row { lr: recipe.lr, ..lora() };
        let with_ranks = Recipe { cache_trunk: false, ..recipe.clone() };
        let told_of_ranks = told(&slow, with_ranks.clone(), 7);
        says(&told_of_ranks, &before, &[&common[..], &[ranks]].concat());
        assert_eq!(told_of_ranks.0.used.as_ref().unwrap().recipe, with_ranks);
        let head = Row { lr: recipe.lr, cache_trunk: true, ..row(Method::Head { pre_classifier: true }) };
        let with_trunk = Recipe { nested_rank: None, recompute: false, ..recipe.clone() };
        let told_of_trunk = told(&head, with_trunk.clone(), 7);
        says(&told_of_trunk, &before, &[&common[..13], &[trunk]].concat());
        assert_eq!(told_of_trunk.0.used.as_ref().unwrap().recipe, with_trunk);
        // In results.json the row contains the fields themselves.
        let kept = told_of_ranks.2["rows"][0]["used"]["recipe"].as_object().unwrap();
        assert!(new.iter().filter(|(name, _)| *name != "cache_trunk").all(|(name, value)| kept[name] == *value), "{kept:?}");
    }

    #[test]
    fn every_field_of_the_method_that_ran_is_told() {
        let before = told(&row(Method::Full), Recipe::default(), 0);
        // No `..`: a new field must be reported too.
        let config = LoraConfig {
            rank: 3,
            alpha: 4.5,
            dropout: 0.3,
            targets: vec!["k_lin".into(), "lin1".into()],
            target_pattern: None,
            init: Init::Gaussian,
            rank_stabilised: true,
            dora: true,
            freeze_a: true,
            rank_pattern: [("lin1".to_string(), 2)].into(),
            alpha_pattern: [("k_lin".to_string(), 1.5)].into(),
            layers: vec![1, 2],
            exclude: vec!["layer.2.attention.k_lin".into()],
            exclude_pattern: None,
            bias: Bias::LoraOnly,
            modules_to_save: vec!["sa_layer_norm".into()],
        };
        let lora = [
            ("method", "LoRA"),
            ("LoRA rank", "3"),
            ("LoRA alpha", "4.5"),
            ("LoRA dropout", "0.3"),
            ("LoRA targets", "k_lin, lin1"),
            ("LoRA init", "Gaussian"),
            ("LoRA rank stabilised", "yes"),
            ("LoRA dora", "yes"),
            ("LoRA freeze a", "yes"),
            ("LoRA rank pattern", "lin1=2"),
            ("LoRA alpha pattern", "k_lin=1.5"),
            ("LoRA layers", "1, 2"),
            ("LoRA exclude", "layer.2.attention.k_lin"),
            ("LoRA bias", "LoraOnly"),
            ("LoRA modules to save", "sa_layer_norm"),
        ];
        let mut others: Vec<(Method, Vec<(&str, &str)>)> = vec![
            (Method::Head { pre_classifier: true }, vec![("method", "Head"), ("Head pre classifier", "yes")]),
            (Method::Selective { frozen_layers: 3 }, vec![("method", "Selective"), ("Selective frozen layers", "3")]),
            (Method::BitFit, vec![("method", "BitFit")]),
            (
                Method::Bottleneck { size: 6, placement: Placement::Pfeiffer },
                vec![("method", "Adapter"), ("Adapter size", "6"), ("Adapter placement", "Pfeiffer")],
            ),
            (Method::Prompt { tokens: 2 }, vec![("method", "Prompt"), ("Prompt tokens", "2")]),
            (Method::Prefix { tokens: 4 }, vec![("method", "Prefix"), ("Prefix tokens", "4")]),
            (
                Method::Intrinsic { dimension: 11, seed: 9 },
                vec![("method", "Intrinsic"), ("Intrinsic dimension", "11"), ("Intrinsic seed", "9")],
            ),
        ];
        others.push((Method::Lora(config.clone()), lora.to_vec()));
        for (method, pairs) in &others {
            // The two patterns, in place of names.
            let patterns = if matches!(method, Method::Lora(_)) { 2 } else { 0 };
            assert_eq!(fields(method).len(), pairs.len() + patterns, "each field of {method:?}");
            says(&told(&row(method.clone()), Recipe::default(), 0), &before, pairs);
        }
        {
            let pattern = LoraConfig { targets: Vec::new(), target_pattern: Some(".*v_lin".into()), ..LoraConfig::new(2, &[]) };
            let pairs = [("LoRA target pattern", ".*v_lin"), ("LoRA targets", "none"), ("LoRA layers", "all")];
            says(&told(&row(Method::Lora(pattern)), Recipe::default(), 0), &before, &pairs);
        }
        assert!(before.1.contains("<td>Full</td>"), "the method that the others are set against");
    }

    #[test]
    fn what_else_a_run_used_is_told() {
        let half = Row { subsample: 2, ..row(Method::Head { pre_classifier: false }) };
        let (result, page, json, table) = told(&half, Recipe::default(), 0);
        // No `..`: a new field must be reported too.
        let Used { recipe: _, method: _, dtype, cut, training_texts, share, test_texts, finished, version, commit } = result.used.unwrap();
        let texts = [cut.max_length, training_texts, test_texts];
        assert_eq!((dtype.as_str(), texts, share, version.as_str()), ("F32", [9, 2, 4], 0.5, env!("CARGO_PKG_VERSION")));
        assert!(finished.starts_with("20") && finished.ends_with('Z') && !commit.is_empty());
        for (name, value) in [
            ("computed in", "F32"),
            ("max length", "9"),
            ("training texts", "2"),
            ("share of the training texts", "0.5"),
            ("test texts", "4"),
            ("finished", &finished),
            ("lowrank", &version),
            ("commit", &commit),
            ("machine", "A processor"),
        ] {
            assert!(page.contains(&format!("<th scope=\"row\">{name}</th><td>{value}</td>")), "{name} {value}");
            assert_eq!(json["made"][name], *value);
        }
        let head = page.split("</header>").next().unwrap();
        for text in [&finished, &commit, "A processor"] {
            assert!(head.contains(text) && table.contains(text), "{text}");
        }
    }

    #[test]
    fn rows_that_differ_are_told_apart() {
        let result = |row: &str, seed, lr| RowResult {
            row: row.into(),
            seed,
            used: Some(Used {
                recipe: Recipe { lr, seed, ..Recipe::default() },
                method: Method::Full,
                dtype: "F32".into(),
                cut: 9.into(),
                training_texts: 4,
                share: 1.0,
                test_texts: 4,
                finished: "then".into(),
                version: "1".into(),
                commit: "c".into(),
            }),
            ..RowResult::default()
        };
        let results = [result("a", 0, 1e-3), result("a", 1, 1e-3), result("b", 0, 0.5), result("b", 1, 0.5), result("c", 0, 1e-3)];
        let rows = ["a", "b", "c"].map(|key| Row { key: key.into(), name: key.to_uppercase(), ..row(Method::Full) });
        let all = settings(&rows, &results).unwrap();
        let text = |name: &str| all.iter().find(|s| s.name == name).unwrap().text();
        assert_eq!(text("learning rate"), "1e-3 (A, C); 0.5 (B)");
        assert_eq!((text("seed"), text("epochs")), ("0, 1 (A, B); 0 (C)".into(), "3".into()));
    }

    #[test]
    fn numbers_are_as_a_person_writes_them() {
        // 5 · 3e-4 in floating point.
        assert_eq!(5.0 * 3e-4, 1.4999999999999998e-3);
        assert_eq!(number(5.0 * 3e-4), "1.5e-3");
        let all = [0.0, 1e-3, 0.1, 0.01, 16.0, 1.0, 0.1 + 0.2, 1e30, 2e-5].map(number);
        assert_eq!(all, ["0", "1e-3", "0.1", "0.01", "16", "1", "0.3", "1e30", "2e-5"]);
        assert_eq!(crate::study::rows(Default::default(), 5.0)[1].lr, 1.5e-3, "a row trains with the rate that is told");
    }
}
