//! The end of a training run as a page: `report.html`.

use super::figures::{AllFigures, Figures};
use super::in_words::percent;
use super::page_parts::{figures_of_each, labels, overall_figures, settings, training};
use super::summary::Finished;
use super::task_page;
use crate::study::figure::{Figure, Plot, Point, Series};
use crate::study::page::Page;
use lowrank::metrics::{Metrics, ReliabilityBin, argmax};
use lowrank::text::thousands;
use lowrank::train::Evaluation;

/// Most classes of a table with a column for each answer.
const MATRIX: usize = 12;
/// Number of the most frequent confusions that are listed if there are more classes.
const CONFUSIONS: usize = 30;
/// Number of mistakes shown.
const MISTAKES: usize = 20;

/// The page of a run as HTML. `texts` are the test texts, in order; empty if they could not be read again.
pub fn page(run: &Finished, texts: &[String]) -> String {
    let (AllFigures::Classes(metrics), Figures::Classes(test)) = (run.figures, &run.tested.test) else {
        return task_page::page(run, texts);
    };
    let mut page = Page::default();
    page.heading("The test");
    overall_figures(&mut page, run, &format!("All classes together. {}", run.figures.of_intervals()));
    figures_of_each(&mut page, run, "class", "Each class against the others.");
    page.heading("Confusions");
    confusions(&mut page, run, test);
    page.heading("Training");
    training(&mut page, run);
    page.heading("Whether the probabilities are true");
    reliability(&mut page, run, metrics);
    page.heading("The most confident mistakes");
    mistakes(&mut page, run, texts);
    page.heading("Settings");
    settings(&mut page, run);
    let lead = format!(
        "{} texts to train on, {} to test. Test accuracy {}, loss {:.4}.",
        thousands(run.texts.train.len()),
        thousands(run.texts.test.len()),
        percent(&metrics.accuracy),
        test.loss
    );
    page.html("A training run of lowrank", &lead)
}

fn confusions(page: &mut Page, run: &Finished, test: &Evaluation) {
    let (labels, confusion) = (labels(run), &test.confusion);
    if labels.len() <= MATRIX {
        let head: Vec<String> =
            std::iter::once("label".to_string()).chain(labels.iter().map(|label| format!("answered {label}"))).collect();
        let row = |(label, row): (&String, &Vec<usize>)| std::iter::once(label.clone()).chain(row.iter().map(|n| thousands(*n))).collect();
        let rows: Vec<Vec<String>> = labels.iter().zip(confusion).map(row).collect();
        return page.table("Test texts of each class by the answer.", &head, &rows);
    }
    let cells = confusion.iter().enumerate().flat_map(|(label, row)| row.iter().enumerate().map(move |(answer, n)| (*n, label, answer)));
    let mut wrong: Vec<(usize, usize, usize)> = cells.filter(|&(n, label, answer)| n > 0 && label != answer).collect();
    wrong.sort_by_key(|&(n, label, answer)| (std::cmp::Reverse(n), label, answer));
    let row = |&(n, label, answer): &(usize, usize, usize)| vec![labels[label].clone(), labels[answer].clone(), thousands(n)];
    let rows: Vec<_> = wrong.iter().take(CONFUSIONS).map(row).collect();
    page.table("The most frequent wrong answers.", &["label", "answer", "test texts"], &rows);
}

fn reliability(page: &mut Page, run: &Finished, metrics: &Metrics) {
    let point = |bin: &ReliabilityBin| Point {
        x: 100.0 * bin.confidence,
        y: 100.0 * bin.accuracy,
        interval: Some((100.0 * bin.interval.0, 100.0 * bin.interval.1)),
    };
    let even = 100.0 / labels(run).len().max(1) as f64;
    let ideal = [even, 100.0].map(|x| Point { x, y: x, interval: None }).to_vec();
    let series = vec![
        Series { name: "measured".to_string(), points: metrics.reliability.iter().map(point).collect() },
        Series { name: "true probabilities".to_string(), points: ideal },
    ];
    let caption = match run.tested.temperature {
        Some(t) => format!("At the temperature {t:.3}, which was found on the held-out texts."),
        None => "No temperature was found: there are no or few held-out texts, or all answers on them are right.".to_string(),
    };
    let labels = ["probability of the answer (%)", "share of right answers (%)"];
    page.figure(&Figure::linear("Reliability", &caption, labels, Plot::Lines(series)));
    let row = |bin: &ReliabilityBin| {
        let [low, high, confidence, accuracy, from, to] =
            [bin.bounds.0, bin.bounds.1, bin.confidence, bin.accuracy, bin.interval.0, bin.interval.1].map(|x| 100.0 * x);
        vec![format!("{low:.1}–{high:.1}"), thousands(bin.texts), format!("{confidence:.2}"), format!("{accuracy:.2} ({from:.2}–{to:.2})")]
    };
    let rows: Vec<_> = metrics.reliability.iter().map(row).collect();
    let head = ["probability of the answer (%)", "test texts", "mean probability (%)", "right answers (%)"];
    page.table("The figure in numbers.", &head, &rows);
}

fn mistakes(page: &mut Page, run: &Finished, texts: &[String]) {
    let (labels, truth, rows) = (labels(run), &run.texts.test.labels, &run.tested.probabilities);
    let answers: Vec<usize> = rows.iter().map(|row| argmax(row)).collect();
    let mut wrong: Vec<usize> = (0..rows.len()).filter(|&i| answers[i] != truth[i] as usize).collect();
    wrong.sort_by(|&a, &b| rows[b][answers[b]].total_cmp(&rows[a][answers[a]]));
    let share = 100.0 * wrong.len() as f64 / rows.len().max(1) as f64;
    page.text(&format!("{} of {} test texts are answered wrongly ({share:.2} %).", thousands(wrong.len()), thousands(rows.len())));
    if texts.len() != rows.len() {
        return page.text("The texts could not be read again, so they are not shown.");
    }
    for i in wrong.into_iter().take(MISTAKES) {
        let (answer, label) = (answers[i], truth[i] as usize);
        let below = format!(
            "Text {} of the test. Label: {} (probability {:.2} %). Answer: {} ({:.2} %).",
            thousands(i + 1),
            labels[label],
            100.0 * rows[i][label],
            labels[answer],
            100.0 * rows[i][answer]
        );
        page.excerpt(&format!("{} answered {}", labels[label], labels[answer]), &texts[i], &below);
    }
}
