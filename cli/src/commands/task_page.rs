//! The end of a training run as a page, if the labels are no classes.

use super::figures::AllFigures;
use super::page_parts::{figures_of_each, labels, overall_figures, settings, training};
use super::summary::Finished;
use crate::study::figure::{Figure, Plot, Point, Series};
use crate::study::page::Page;
use lowrank::text::thousands;
use lowrank::train::{labels_found, number_errors};
use std::slice::from_ref;

/// Number of the worst answers shown.
const WORST: usize = 20;
/// Most groups of texts with similar labels.
const GROUPS: usize = 12;

/// The page as HTML. `texts` are the test texts, in order; empty if they could not be read again.
pub fn page(run: &Finished, texts: &[String]) -> String {
    let mut page = Page::default();
    page.heading("The test");
    overall_figures(&mut page, run, &run.figures.of_intervals());
    if let AllFigures::Labels(_) = run.figures {
        each_label(&mut page, run);
    } else {
        answers(&mut page, run);
    }
    page.heading("Training");
    training(&mut page, run);
    page.heading("The worst answers");
    worst(&mut page, run, texts);
    page.heading("Settings");
    settings(&mut page, run);
    let (train, test) = (thousands(run.texts.train.len()), thousands(run.texts.test.len()));
    page.html("A training run of lowrank", &format!("{train} texts to train on, {test} to test. {}.", run.tested.test.describe()))
}

fn each_label(page: &mut Page, run: &Finished) {
    let caption = match run.tested.thresholds {
        Some(_) => "Each label alone. Its threshold is the one with the highest F1 on the held-out texts.",
        None => "Each label alone. There are no or few held-out texts, so each threshold is 1/2.",
    };
    figures_of_each(page, run, "label", caption);
}

/// The answers to texts with similar labels.
fn answers(page: &mut Page, run: &Finished) {
    let (found, wanted) = (run.tested.probabilities.concat(), run.texts.test.wanted().concat());
    let mut pairs: Vec<(f64, f64)> = wanted.iter().copied().zip(found).collect();
    pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
    let point = |group: &[(f64, f64)]| {
        let mut answers: Vec<f64> = group.iter().map(|pair| pair.1).collect();
        answers.sort_by(f64::total_cmp);
        let at = |q: f64| answers[(q * (answers.len() - 1) as f64).round() as usize];
        let mean = |of: fn(&(f64, f64)) -> f64| group.iter().map(of).sum::<f64>() / group.len() as f64;
        Point { x: mean(|pair| pair.0), y: mean(|pair| pair.1), interval: Some((at(0.1), at(0.9))) }
    };
    let points: Vec<Point> = pairs.chunks(pairs.len().div_ceil(GROUPS).max(1)).map(point).collect();
    let right = points.iter().map(|p| Point { x: p.x, y: p.x, interval: None }).collect();
    let series = vec![Series { name: "answered".to_string(), points }, Series { name: "right answers".to_string(), points: right }];
    let caption = "Mean answer to groups of test texts with similar labels, and the middle 80 % of these answers.";
    page.figure(&Figure::linear("Answers", caption, ["label", "answer"], Plot::Lines(series)));
}

/// How wrong an answer is: the squared error, or the binary cross-entropy.
fn error(run: &Finished, found: &Vec<f64>, wanted: &Vec<f64>) -> f64 {
    // The loss does not depend on thresholds.
    let (found, wanted, thresholds) = (from_ref(found), from_ref(wanted), vec![0.5; found.len()]);
    match run.figures {
        AllFigures::Numbers(_) => number_errors(found, wanted).mean_squared_error,
        _ => labels_found(found, wanted, &thresholds).loss,
    }
}

fn worst(page: &mut Page, run: &Finished, texts: &[String]) {
    let (found, wanted) = (&run.tested.probabilities, run.texts.test.wanted());
    if texts.len() != found.len() {
        return page.text("The texts could not be read again, so they are not shown.");
    }
    let mut order: Vec<(usize, f64)> = found.iter().zip(&wanted).map(|(found, wanted)| error(run, found, wanted)).enumerate().collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1));
    let in_words = |row: &[f64], low: f64| match run.figures {
        AllFigures::Numbers(_) => format!("{:.4}", row[0]),
        _ => {
            let some: Vec<String> =
                labels(run).iter().zip(row).filter(|(_, p)| **p >= low).map(|(name, p)| format!("{name} {:.2} %", 100.0 * p)).collect();
            if some.is_empty() { "none".to_string() } else { some.join(", ") }
        }
    };
    for (i, _) in order.into_iter().take(WORST) {
        let below =
            format!("Text {} of the test. Label: {}. Answer: {}.", thousands(i + 1), in_words(&wanted[i], 0.5), in_words(&found[i], 0.1));
        page.excerpt("Far from its label", &texts[i], &below);
    }
}
