//! What the study claims, each with a verdict from measurements. A difference counts if its 95 % interval does not hold 0.

use super::figure::thousands;
use super::figure::{Axis, Bar, Figure, Plot, Point, Scale, Series};
use super::page::Verdict;
use super::rows::{DIMENSIONS, PARTS};
use super::statistics::{Difference, accuracy, difference, mcnemar, p_value};
use super::{Cost, Latency, Row, RowResult, rank_of};

/// A claim, and what was found.
pub struct Claim {
    /// What the study says.
    pub claim: String,
    /// Whether that was found.
    pub verdict: Verdict,
    /// The numbers.
    pub measured: String,
    /// What there is to see.
    pub figures: Vec<Figure>,
}

/// What verdicts rest on.
pub struct Evidence<'a> {
    /// All rows that were run.
    pub rows: &'a [Row],
    /// Their results.
    pub results: &'a [RowResult],
    /// Labels of the test reviews.
    pub labels: &'a [u32],
    /// Trainable counts at the size of DistilBERT-base by row, and those that the study states.
    pub counts: Vec<(String, usize, usize)>,
    /// Largest difference of a logit between the base and a newly adapted model, with A of either kind, if it was measured.
    pub start: Option<f64>,
    /// Singular values of ΔW by linear: of full fine-tuning, and of B A.
    pub spectra: [Vec<(String, Vec<f64>)>; 2],
    /// Mean ‖ΔW‖ of the adapted linears, by the row's key.
    pub norms: Vec<(String, f64)>,
    /// Times of inference.
    pub latency: Vec<Latency>,
}

/// Points of a per cent below which a gain is small.
const SMALL: f64 = 1.0;

impl Evidence<'_> {
    fn of(&self, key: &str) -> Vec<&RowResult> {
        self.results.iter().filter(|r| r.row == key).collect()
    }

    fn name<'a>(&'a self, key: &'a str) -> &'a str {
        self.rows.iter().find(|row| row.key == key).map_or(key, |row| &row.name)
    }

    /// Mean accuracy over the seeds, in per cent.
    fn accuracy(&self, key: &str) -> Option<f64> {
        let of = self.of(key);
        (!of.is_empty()).then(|| accuracy(&of).0)
    }

    /// Whether a row may be no better than guessing one of two classes.
    fn guesses(&self, key: &str) -> bool {
        self.of(key).iter().any(|r| r.test.interval.0 <= 0.5)
    }

    fn difference(&self, a: &str, b: &str) -> Option<Difference> {
        difference(&self.of(a), &self.of(b), self.labels)
    }

    /// "name 80.00, name 81.00".
    fn list(&self, keys: &[&str]) -> String {
        let one = |key: &&str| self.accuracy(key).map(|a| format!("{} {a:.2} %", self.name(key)));
        keys.iter().filter_map(one).collect::<Vec<_>>().join(", ")
    }

    /// A point of a curve of accuracies, with the interval of the review sample.
    fn point(&self, x: f64, key: &str) -> Option<Point> {
        let of = self.of(key);
        let (y, interval) = accuracy(&of);
        (!of.is_empty()).then_some(Point { x, y, interval: Some(interval) })
    }

    fn curve(&self, name: &str, points: &[(f64, String)]) -> Series {
        Series { name: name.to_string(), points: points.iter().filter_map(|(x, key)| self.point(*x, key)).collect() }
    }
}

/// All claims, in the order of the study.
pub fn claims(evidence: &Evidence) -> Vec<Claim> {
    [counts, rank, targets, feed_forward, head, selective, adapters, latency, low_rank, start, alpha, samples, rates, minutes]
        .iter()
        .map(|claim| claim(evidence))
        .collect()
}

/// Supported if the difference is above 0 beyond its interval.
fn above(difference: Option<Difference>) -> Verdict {
    match difference {
        Some(d) if d.interval.0 > 0.0 => Verdict::Supported,
        Some(d) if d.interval.1 < 0.0 => Verdict::NotSupported,
        Some(_) => Verdict::Undecided,
        None => Verdict::NotMeasured,
    }
}

/// Supported if the difference is below `most` beyond its interval.
fn below(difference: Option<Difference>, most: f64) -> Verdict {
    match difference {
        Some(d) if d.interval.1 < most => Verdict::Supported,
        Some(d) if d.interval.0 > most => Verdict::NotSupported,
        Some(_) => Verdict::Undecided,
        None => Verdict::NotMeasured,
    }
}

/// Supported if all are, not supported if one is not.
fn all(verdicts: &[Verdict]) -> Verdict {
    let worst = [Verdict::NotSupported, Verdict::NotMeasured, Verdict::Undecided];
    worst.into_iter().find(|verdict| verdicts.contains(verdict)).unwrap_or(Verdict::Supported)
}

fn said(difference: Option<Difference>) -> String {
    difference.map_or("not measured".to_string(), |d| d.to_string())
}

fn accuracy_figure(title: &str, caption: &str, x: &str, scale: Scale, series: Vec<Series>) -> Figure {
    Figure {
        title: title.to_string(),
        caption: caption.to_string(),
        x: Axis { label: x.to_string(), scale },
        y: Axis { label: "test accuracy (%)".to_string(), scale: Scale::Linear },
        plot: Plot::Lines(series),
    }
}

fn counts(e: &Evidence) -> Claim {
    let wrong: Vec<_> = e.counts.iter().filter(|(_, found, stated)| found != stated).collect();
    let list: Vec<String> = e.counts.iter().map(|(key, found, _)| format!("{} {}", e.name(key), thousands(*found))).collect();
    let verdict = match (e.counts.is_empty(), wrong.is_empty()) {
        (true, _) => Verdict::NotMeasured,
        (_, true) => Verdict::Supported,
        _ => Verdict::NotSupported,
    };
    let measured = format!("At the size of DistilBERT-base: {}.", list.join(", "));
    Claim {
        claim: "LoRA trains 665,858 to 1,255,682 of 66,955,010 numbers: 0.99 to 1.88 %.".into(),
        verdict,
        measured,
        figures: Vec::new(),
    }
}

fn rank(e: &Evidence) -> Claim {
    let doublings = [("qv8", "qv4"), ("qv16", "qv8")].map(|(more, less)| (more, less, e.difference(more, less)));
    let verdict = all(&doublings.map(|(_, _, d)| below(d, SMALL)));
    let gains = doublings.map(|(more, less, d)| format!("{} against {}: {}", e.name(more), e.name(less), said(d)));
    let ranks: Vec<(f64, String)> = [1, 2, 4, 8, 16].iter().map(|r| (f64::from(*r), format!("qv{r}"))).collect();
    Claim {
        claim: "Rank has diminishing returns: each doubling from 4 on gains about 0.2 points.".into(),
        verdict,
        measured: format!("{}. Supported means that each gains less than {SMALL} point. {}.", gains.join("; "), e.list(&["qv1", "qv2"])),
        figures: vec![accuracy_figure(
            "Accuracy against rank",
            "Low-rank terms on Q and V. Bars: 95 % intervals of the sample of reviews.",
            "rank r",
            Scale::Log,
            vec![e.curve("Q+V", &ranks)],
        )],
    }
}

fn targets(e: &Evidence) -> Claim {
    let d = e.difference("attention", "qv16");
    let exact = match (e.of("attention").first(), e.of("qv16").first()) {
        (Some(a), Some(b)) => {
            let (only_a, only_b, p) = mcnemar(&a.answers, &b.answers, e.labels);
            format!(" With seed {}, one alone is right on {only_a} and {only_b} reviews, {} (McNemar).", a.seed, p_value(p))
        }
        _ => String::new(),
    };
    Claim {
        claim: "At the same budget, four matrices at rank 8 beat two at rank 16.".into(),
        verdict: above(d),
        measured: format!("All attention r=8 against Q+V r=16: {}.{exact}", said(d)),
        figures: Vec::new(),
    }
}

fn feed_forward(e: &Evidence) -> Claim {
    let d = e.difference("all", "attention");
    let others = [("qv8", "qv4"), ("qv16", "qv8"), ("attention", "qv16")];
    let others: Option<Vec<f64>> = others.iter().map(|(a, b)| Some(e.difference(a, b)?.points)).collect();
    let largest = others.and_then(|points| points.into_iter().reduce(f64::max));
    let verdict = match (d, largest) {
        (None, _) | (_, None) => Verdict::NotMeasured,
        (Some(d), Some(largest)) if d.interval.1 < largest => Verdict::NotSupported,
        (Some(d), Some(largest)) if d.interval.0 > 0.0 && d.points > largest => Verdict::Supported,
        _ => Verdict::Undecided,
    };
    Claim {
        claim: "The feed-forward layers give the largest boost.".into(),
        verdict,
        measured: format!(
            "All attention + FFN against all attention: {}. The largest other step between neighbours of the table: {}. (The \
             study's own figures give 0.32 for this step and 0.33 for the one from Q+V r=16 to all attention.)",
            said(d),
            largest.map_or("not measured".to_string(), |points| format!("{points:+.2} points"))
        ),
        figures: Vec::new(),
    }
}

fn head(e: &Evidence) -> Claim {
    let best = if e.accuracy("head-long") > e.accuracy("head") { "head-long" } else { "head" };
    let d = e.difference("qv4", best);
    Claim {
        claim: "The classification head alone is insufficient.".into(),
        verdict: above(d),
        measured: format!("Q+V r=4 against {}: {}. {}.", e.name(best), said(d), e.list(&["head", "head-long"])),
        figures: Vec::new(),
    }
}

fn selective(e: &Evidence) -> Claim {
    let differences = ["top1", "top2"].map(|key| (key, e.difference("full", key)));
    let list: Vec<String> = differences.iter().map(|(key, d)| format!("full against {}: {}", e.name(key), said(*d))).collect();
    Claim {
        claim: "Fine-tuning only the upper layers falls short.".into(),
        verdict: above(differences[0].1),
        measured: format!("{}. The verdict is that of one layer.", list.join("; ")),
        figures: Vec::new(),
    }
}

fn adapters(e: &Evidence) -> Claim {
    let d = e.difference("full", "adapter");
    let share = e.of("adapter").first().map_or(String::new(), |r| {
        format!(" They train {} numbers, {:.2} % of the model.", thousands(r.trainable), 100.0 * r.trainable as f64 / r.base as f64)
    });
    Claim {
        claim: "Adapters come near full fine-tuning with 3 % of the parameters.".into(),
        verdict: below(d, SMALL),
        measured: format!("Full fine-tuning against adapters: {}.{share} Supported means less than {SMALL} point behind.", said(d)),
        figures: Vec::new(),
    }
}

fn latency(e: &Evidence) -> Claim {
    let of = |name: &str| e.latency.iter().find(|l| l.method == name).map(|l| l.cost);
    let verdict = match (of("merged LoRA"), of("adapters")) {
        (None, _) | (_, None) => Verdict::NotMeasured,
        (Some(None), _) | (_, Some(None)) => Verdict::NotJudged,
        (Some(Some(Cost::Nothing)), Some(Some(Cost::Time))) => Verdict::Supported,
        (Some(Some(Cost::Time)), _) | (_, Some(Some(Cost::Nothing))) => Verdict::NotSupported,
        _ => Verdict::Undecided,
    };
    let one = |l: &Latency| format!("{} {:.3} ({:.3}–{:.3})", l.method, l.ratio[0], l.ratio[1], l.ratio[2]);
    let list: Vec<String> = e.latency.iter().filter(|l| l.method != "base").map(one).collect();
    Claim {
        claim: "A merged LoRA costs nothing at inference; adapters do.".into(),
        verdict,
        measured: format!(
            "Time of a text alone as a multiple of the base's, medians with 95 % intervals: {}. Supported means that merged LoRA lies within \
             2 % of the base and adapters lie above that. Fewer than ten rounds are not judged.",
            list.join(", ")
        ),
        figures: latencies(e).into_iter().collect(),
    }
}

/// Bars of the times of inference.
fn latencies(e: &Evidence) -> Option<Figure> {
    let bar = |l: &Latency| Bar {
        name: l.method.clone(),
        value: 1e3 * l.seconds[0],
        interval: Some((1e3 * l.seconds[1], 1e3 * l.seconds[2])),
        mark: None,
    };
    (!e.latency.is_empty()).then(|| Figure {
        title: "Latency of one text".into(),
        caption: "Medians with 95 % intervals; the methods take turns, in another order each round.".into(),
        x: Axis { label: "time (ms)".into(), scale: Scale::Linear },
        y: Axis { label: "method".into(), scale: Scale::Linear },
        plot: Plot::Bars(e.latency.iter().map(bar).collect()),
    })
}

fn low_rank(e: &Evidence) -> Claim {
    let shares: Vec<f64> = e.spectra[0].iter().map(|(_, s)| rank_of(s, 0.9) as f64 / s.len().max(1) as f64).collect();
    let mean = shares.iter().sum::<f64>() / shares.len().max(1) as f64;
    // d90: the smallest subspace that reaches 90 % of what full fine-tuning gains over guessing. Aghajanyan et al. 2020, section 3.
    let goal = e.accuracy("full").map(|full| 50.0 + 0.9 * (full - 50.0));
    let keys = DIMENSIONS.map(|d| format!("intrinsic{d}"));
    let reached = DIMENSIONS.iter().zip(&keys).find(|(_, key)| e.accuracy(key) >= goal && goal.is_some());
    // Where full fine-tuning itself may only guess, there is no gain to reach a part of; and a large subspace that guesses has not trained.
    let guesses = e.guesses("full") || keys.last().is_some_and(|key| e.guesses(key));
    let measured = keys.iter().all(|key| e.accuracy(key).is_some());
    let verdict = match (shares.is_empty() || !measured, goal) {
        (true, _) | (_, None) => Verdict::NotMeasured,
        _ if guesses => Verdict::Undecided,
        _ if mean <= 0.1 && reached.is_some() => Verdict::Supported,
        _ if mean > 0.1 && reached.is_none() => Verdict::NotSupported,
        _ => Verdict::Undecided,
    };
    let points: Vec<(f64, String)> = DIMENSIONS.iter().map(|d| *d as f64).zip(keys.clone()).collect();
    let curve = accuracy_figure(
        "Accuracy against the dimension of a random subspace",
        "The layers train in a random subspace of d dimensions, beside the head. Bars: 95 % intervals of the sample of test reviews.",
        "dimension d",
        Scale::Log,
        vec![e.curve("random subspace", &points)],
    );
    Claim {
        claim: "The change of the weights has low rank.".into(),
        verdict,
        measured: format!(
            "Of full fine-tuning's ΔW of Q and V, {:.0} % of the directions hold 90 % of the square, on average over {} matrices; a random subspace \
             reaches 90 % of full fine-tuning's gain over guessing with {}: {}. Supported means at most 10 % of the directions, and a subspace \
             among those tried.",
            100.0 * mean,
            shares.len(),
            reached.map_or("none of the dimensions tried".to_string(), |(d, _)| format!("d = {}", thousands(*d))),
            e.list(&keys.each_ref().map(|s| s.as_str())),
        ),
        figures: spectra(e).into_iter().chain(measured.then_some(curve)).collect(),
    }
}

/// Singular values of what full fine-tuning and LoRA changed in a matrix in the middle of the model.
fn spectra(e: &Evidence) -> Option<Figure> {
    let spectrum = |(name, values): &(String, Vec<f64>), of: &str| {
        let largest = values.first().copied().unwrap_or(1.0);
        let point = |(i, s): (usize, &f64)| Point { x: (i + 1) as f64, y: s / largest, interval: None };
        // What is zero but for rounding is no direction.
        let kept = values.iter().enumerate().filter(|(_, s)| **s > 1e-6 * largest);
        Series { name: format!("{of} {name}"), points: kept.map(point).collect() }
    };
    let middle = |spectra: &[(String, Vec<f64>)], of: &str| spectra.get(spectra.len() / 2).map(|s| spectrum(s, of));
    let series: Vec<Series> = [middle(&e.spectra[0], "full"), middle(&e.spectra[1], "B A of rank 8,")].into_iter().flatten().collect();
    (!series.is_empty()).then(|| Figure {
        title: "Singular values of ΔW".into(),
        caption: "Of one matrix in the middle of the model, each divided by its largest.".into(),
        x: Axis { label: "number of the singular value".into(), scale: Scale::Log },
        y: Axis { label: "singular value / largest".into(), scale: Scale::Log },
        plot: Plot::Lines(series),
    })
}

/// What there is to see without judging the claims.
pub fn figures(evidence: &Evidence) -> Vec<Figure> {
    [spectra(evidence), latencies(evidence)].into_iter().flatten().collect()
}

fn start(e: &Evidence) -> Claim {
    let d = e.difference("qv8-gaussian", "qv8");
    Claim {
        claim: "With A random and B zero, training starts exactly at the base.".into(),
        verdict: match e.start {
            Some(0.0) => Verdict::Supported,
            Some(_) => Verdict::NotSupported,
            None => Verdict::NotMeasured,
        },
        measured: format!(
            "Largest difference of a logit from the base's, with A Gaussian and with A uniform: {}. After training, A Gaussian against uniform: {}.",
            e.start.map_or("not measured".to_string(), |far| format!("{far:e}")),
            said(d)
        ),
        figures: Vec::new(),
    }
}

fn alpha(e: &Evidence) -> Claim {
    let norm = |key: &str| e.norms.iter().find(|(k, _)| k == key).map(|(_, norm)| *norm);
    let spread = |keys: [&str; 3]| {
        let norms: Option<Vec<f64>> = keys.iter().map(|key| norm(key).filter(|n| n.is_finite())).collect();
        norms.map(|n| n.iter().copied().fold(0.0, f64::max) / n.iter().copied().fold(f64::INFINITY, f64::min))
    };
    let (scaled, fixed) = (spread(["qv4", "qv8", "qv16"]), spread(["qv4-alpha16", "qv8", "qv16-alpha16"]));
    let verdict = match (scaled, fixed) {
        (Some(scaled), Some(fixed)) if scaled < fixed => Verdict::Supported,
        (Some(_), Some(_)) => Verdict::NotSupported,
        _ => Verdict::NotMeasured,
    };
    let ratio = |x: Option<f64>| x.map_or("not measured".to_string(), |x| format!("{x:.2}"));
    Claim {
        claim: "alpha = 2r keeps the effective learning rate stable across ranks.".into(),
        verdict,
        measured: format!(
            "Largest over smallest mean length of ΔW at r = 4, 8 and 16: {} with alpha = 2r, {} with alpha = 16. {}.",
            ratio(scaled),
            ratio(fixed),
            e.list(&["qv4", "qv4-alpha16", "qv16", "qv16-alpha16"])
        ),
        figures: Vec::new(),
    }
}

fn samples(e: &Evidence) -> Claim {
    let behind = PARTS.map(|part| (part, e.difference(&format!("full-1of{part}"), &format!("qv8-1of{part}"))));
    let list = behind.map(|(part, d)| format!("1/{part}: {}", said(d)));
    let verdicts = behind.map(|(part, d)| {
        let both_guess = e.guesses(&format!("full-1of{part}")) && e.guesses(&format!("qv8-1of{part}"));
        if both_guess && d.is_some() { Verdict::Undecided } else { below(d, SMALL) }
    });
    let curve = |key: &str, name: &str| {
        let parts = PARTS.iter().map(|part| (1.0 / *part as f64, format!("{key}-1of{part}")));
        e.curve(name, &parts.chain([(1.0, key.to_string())]).collect::<Vec<_>>())
    };
    Claim {
        claim: "Parameter-efficient methods are sample-efficient.".into(),
        verdict: all(&verdicts),
        measured: format!(
            "Full fine-tuning against Q+V r=8 on a part of the reviews: {}. Supported means that LoRA is nowhere {SMALL} point behind, and that one of the two \
             is better than guessing.",
            list.join("; ")
        ),
        figures: vec![accuracy_figure(
            "Accuracy against the number of reviews",
            "The same epochs over a part of the training reviews. Bars: 95 % intervals of the sample of test reviews.",
            "share of the training reviews",
            Scale::Log,
            vec![curve("qv8", "Q+V r=8"), curve("full", "full fine-tuning")],
        )],
    }
}

fn rates(e: &Evidence) -> Claim {
    let (lora, full) = (e.difference("qv8", "qv8-slow"), e.difference("full", "full-fast"));
    Claim {
        claim: "LoRA works well with a higher learning rate, 3e-4, than full fine-tuning, 2e-5.".into(),
        verdict: all(&[above(lora), above(full)]),
        measured: format!(
            "LoRA at its own rate against full fine-tuning's: {}. Full fine-tuning at its own rate against LoRA's: {}.",
            said(lora),
            said(full)
        ),
        figures: Vec::new(),
    }
}

fn minutes(e: &Evidence) -> Claim {
    let keys = ["qv4", "qv8", "qv16", "attention", "all", "full"];
    let one = |key: &&str| {
        let of = e.of(key);
        let mean = of.iter().map(|r| r.seconds).sum::<f64>() / of.len().max(1) as f64 / 60.0;
        (!of.is_empty()).then(|| format!("{} {mean:.1}", e.name(key)))
    };
    Claim {
        claim: "A LoRA row trains in 3 to 6 minutes on an A100.".into(),
        verdict: Verdict::NotMeasured,
        measured: format!("Minutes of training here, on another machine: {}.", keys.iter().filter_map(one).collect::<Vec<_>>().join(", ")),
        figures: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_is_judged_from_what_the_times_say() {
        let verdict = |merged: Option<Cost>, adapters: Option<Cost>| {
            let time = |method: &str, cost| Latency { method: method.into(), seconds: [1.0; 3], ratio: [1.0; 3], cost };
            let times = vec![time("merged LoRA", merged), time("adapters", adapters)];
            let (counts, start, spectra, norms) = (Vec::new(), None, [Vec::new(), Vec::new()], Vec::new());
            latency(&Evidence { rows: &[], results: &[], labels: &[], counts, start, spectra, norms, latency: times }).verdict
        };
        assert_eq!(verdict(Some(Cost::Nothing), Some(Cost::Time)), Verdict::Supported);
        assert_eq!(verdict(Some(Cost::Time), Some(Cost::Time)), Verdict::NotSupported);
        assert_eq!(verdict(Some(Cost::Nothing), Some(Cost::Nothing)), Verdict::NotSupported);
        assert_eq!(verdict(Some(Cost::Undecided), Some(Cost::Time)), Verdict::Undecided);
        // Fewer than ten rounds.
        assert_eq!(verdict(None, None), Verdict::NotJudged);
    }
}
