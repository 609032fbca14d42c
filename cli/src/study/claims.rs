//! What the study claims. Each claim gets a verdict from measurements.

use super::claim_figures::{dimension_curve, latencies, rank_curve, sample_curve, spectra};
use super::evidence::Evidence;
use super::figure::Figure;
use super::rows::{DIMENSIONS, PARTS};
use super::statistics::{mcnemar, p_value};
use super::verdict::{Verdict, above, all, below, holds};
use super::{Cost, Latency, rank_of};
use lowrank::text::thousands;

/// A claim with its verdict.
pub struct Claim {
    /// What the study says.
    pub claim: String,
    /// Whether the measurements support it.
    pub verdict: Verdict,
    /// The numbers on which the verdict rests.
    pub measured: String,
    /// Plots of these numbers.
    pub figures: Vec<Figure>,
}

/// A gain below this many percentage points counts as small.
const SMALL: f64 = 1.0;

/// Judges a claim: the verdict, and the numbers in words.
type Judge = fn(&Evidence) -> (Verdict, String);
/// Draws a figure of a claim; `None` if there is nothing to draw.
type Draw = fn(&Evidence) -> Option<Figure>;

/// The claims in the order of the study.
const CLAIMS: [(&str, Judge, &[Draw]); 14] = [
    ("LoRA trains 665,858 to 1,255,682 of 66,955,010 numbers: 0.99 to 1.88 %.", counts, &[]),
    ("Rank has diminishing returns: each doubling from 4 on gains about 0.2 points.", rank, &[rank_curve]),
    ("At the same budget, four matrices at rank 8 beat two at rank 16.", targets, &[]),
    ("The feed-forward layers give the largest boost.", feed_forward, &[]),
    ("The classification head alone is insufficient.", head, &[]),
    ("Fine-tuning only the upper layers falls short.", selective, &[]),
    ("Adapters come near full fine-tuning with 3 % of the parameters.", adapters, &[]),
    ("A merged LoRA costs nothing at inference; adapters do.", latency, &[latencies]),
    ("The change of the weights has low rank.", low_rank, &[spectra, dimension_curve]),
    ("With A random and B zero, training starts exactly at the base.", start, &[]),
    ("alpha = 2r keeps the effective learning rate stable across ranks.", alpha, &[]),
    ("Parameter-efficient methods are sample-efficient.", samples, &[sample_curve]),
    ("LoRA works well with a higher learning rate, 3e-4, than full fine-tuning, 2e-5.", rates, &[]),
    ("A LoRA row trains in 3 to 6 minutes on an A100.", minutes, &[]),
];

/// Judges all claims.
pub fn claims(evidence: &Evidence) -> Vec<Claim> {
    let judged = |(claim, judge, draw): &(&str, Judge, &[Draw])| {
        let (verdict, measured) = judge(evidence);
        Claim { claim: claim.to_string(), verdict, measured, figures: draw.iter().filter_map(|draw| draw(evidence)).collect() }
    };
    CLAIMS.iter().map(judged).collect()
}

fn said<T: ToString>(measured: Option<T>) -> String {
    measured.map_or("not measured".to_string(), |m| m.to_string())
}

fn counts(e: &Evidence) -> (Verdict, String) {
    let list: Vec<String> = e.counts.iter().map(|(key, found, _)| format!("{} {}", e.name(key), thousands(*found))).collect();
    let equal = e.counts.iter().all(|(_, found, stated)| found == stated);
    (holds((!e.counts.is_empty()).then_some(equal)), format!("At the size of DistilBERT-base: {}.", list.join(", ")))
}

fn rank(e: &Evidence) -> (Verdict, String) {
    let doublings = [("qv8", "qv4"), ("qv16", "qv8")].map(|(more, less)| (more, less, e.difference(more, less)));
    let gains = doublings.map(|(more, less, d)| format!("{} against {}: {}", e.name(more), e.name(less), said(d)));
    let others = e.list(&["qv1", "qv2"]);
    (
        all(&doublings.map(|(_, _, d)| below(d, SMALL))),
        format!("{}. Supported means that each gains less than {SMALL} point. {others}.", gains.join("; ")),
    )
}

fn targets(e: &Evidence) -> (Verdict, String) {
    let d = e.difference("attention", "qv16");
    let exact = match (e.of("attention").first(), e.of("qv16").first()) {
        (Some(a), Some(b)) => {
            let (only_a, only_b, p) = mcnemar(&a.answers, &b.answers, e.labels);
            format!(" With seed {}, one alone is right on {only_a} and {only_b} reviews, {} (McNemar).", a.seed, p_value(p))
        }
        _ => String::new(),
    };
    (above(d), format!("All attention r=8 against Q+V r=16: {}.{exact}", said(d)))
}

fn feed_forward(e: &Evidence) -> (Verdict, String) {
    let d = e.difference("all", "attention");
    let others = [("qv8", "qv4"), ("qv16", "qv8"), ("attention", "qv16")];
    let others: Option<Vec<f64>> = others.iter().map(|(a, b)| Some(e.difference(a, b)?.points)).collect();
    let largest = others.and_then(|points| points.into_iter().reduce(f64::max));
    let verdict = match d.zip(largest) {
        None => Verdict::NotMeasured,
        Some((d, largest)) if d.interval.1 < largest => Verdict::NotSupported,
        Some((d, largest)) if d.interval.0 > 0.0 && d.points > largest => Verdict::Supported,
        Some(_) => Verdict::Undecided,
    };
    let measured = format!(
        "All attention + FFN against all attention: {}. The largest other step between neighbours of the table: {}. (The \
         study's own figures give 0.32 for this step and 0.33 for the one from Q+V r=16 to all attention.)",
        said(d),
        said(largest.map(|points| format!("{points:+.2} points")))
    );
    (verdict, measured)
}

fn head(e: &Evidence) -> (Verdict, String) {
    let best = if e.accuracy("head-long") > e.accuracy("head") { "head-long" } else { "head" };
    let d = e.difference("qv4", best);
    (above(d), format!("Q+V r=4 against {}: {}. {}.", e.name(best), said(d), e.list(&["head", "head-long"])))
}

fn selective(e: &Evidence) -> (Verdict, String) {
    let differences = ["top1", "top2"].map(|key| (key, e.difference("full", key)));
    let list = differences.map(|(key, d)| format!("full against {}: {}", e.name(key), said(d)));
    (above(differences[0].1), format!("{}. The verdict is that of one layer.", list.join("; ")))
}

fn adapters(e: &Evidence) -> (Verdict, String) {
    let d = e.difference("full", "adapter");
    let share = e.of("adapter").first().map_or(String::new(), |r| {
        format!(" They train {} numbers, {:.2} % of the model.", thousands(r.trainable), 100.0 * r.trainable as f64 / r.base as f64)
    });
    (below(d, SMALL), format!("Full fine-tuning against adapters: {}.{share} Supported means less than {SMALL} point behind.", said(d)))
}

fn latency(e: &Evidence) -> (Verdict, String) {
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
    let measured = format!(
        "Time of a text alone as a multiple of the base's, medians with 95 % intervals: {}. Supported means that merged LoRA lies within \
         2 % of the base and adapters lie above that. Fewer than ten rounds are not judged.",
        list.join(", ")
    );
    (verdict, measured)
}

fn low_rank(e: &Evidence) -> (Verdict, String) {
    let shares: Vec<f64> = e.spectra[0].iter().map(|(_, s)| rank_of(s, 0.9) as f64 / s.len().max(1) as f64).collect();
    let mean = shares.iter().sum::<f64>() / shares.len().max(1) as f64;
    // d90: the smallest subspace that reaches 90 % of what full fine-tuning gains over guessing. Aghajanyan et al. 2020, section 3.
    let goal = e.accuracy("full").map(|full| 50.0 + 0.9 * (full - 50.0));
    let keys = DIMENSIONS.map(|d| format!("intrinsic{d}"));
    let reached = DIMENSIONS.iter().zip(&keys).find(|(_, key)| e.accuracy(key) >= goal && goal.is_some());
    // If full fine-tuning may only guess, there is no gain to compare with. If the largest subspace guesses, it has not trained.
    let guesses = e.guesses("full") || keys.last().is_some_and(|key| e.guesses(key));
    let measured = keys.iter().all(|key| e.accuracy(key).is_some());
    let verdict = match (shares.is_empty() || !measured, goal) {
        (true, _) | (_, None) => Verdict::NotMeasured,
        _ if guesses => Verdict::Undecided,
        _ if mean <= 0.1 && reached.is_some() => Verdict::Supported,
        _ if mean > 0.1 && reached.is_none() => Verdict::NotSupported,
        _ => Verdict::Undecided,
    };
    let measured = format!(
        "Of full fine-tuning's ΔW of Q and V, {:.0} % of the directions hold 90 % of the square, on average over {} matrices; a random subspace \
         reaches 90 % of full fine-tuning's gain over guessing with {}: {}. Supported means at most 10 % of the directions, and a subspace \
         among those tried.",
        100.0 * mean,
        shares.len(),
        reached.map_or("none of the dimensions tried".to_string(), |(d, _)| format!("d = {}", thousands(*d))),
        e.list(&keys.each_ref().map(|s| s.as_str())),
    );
    (verdict, measured)
}

fn start(e: &Evidence) -> (Verdict, String) {
    let measured = format!(
        "Largest difference of a logit from the base's, with A Gaussian and with A uniform: {}. After training, A Gaussian against uniform: {}.",
        said(e.start.map(|far| format!("{far:e}"))),
        said(e.difference("qv8-gaussian", "qv8"))
    );
    (holds(e.start.map(|far| far == 0.0)), measured)
}

fn alpha(e: &Evidence) -> (Verdict, String) {
    let norm = |key: &str| e.norms.iter().find(|(k, _)| k == key).map(|(_, norm)| *norm);
    let spread = |keys: [&str; 3]| {
        let norms: Option<Vec<f64>> = keys.iter().map(|key| norm(key).filter(|n| n.is_finite())).collect();
        norms.map(|n| n.iter().copied().fold(0.0, f64::max) / n.iter().copied().fold(f64::INFINITY, f64::min))
    };
    let (scaled, fixed) = (spread(["qv4", "qv8", "qv16"]), spread(["qv4-alpha16", "qv8", "qv16-alpha16"]));
    let ratio = |x: Option<f64>| said(x.map(|x| format!("{x:.2}")));
    let measured = format!(
        "Largest over smallest mean length of ΔW at r = 4, 8 and 16: {} with alpha = 2r, {} with alpha = 16. {}.",
        ratio(scaled),
        ratio(fixed),
        e.list(&["qv4", "qv4-alpha16", "qv16", "qv16-alpha16"])
    );
    (holds(scaled.zip(fixed).map(|(scaled, fixed)| scaled < fixed)), measured)
}

fn samples(e: &Evidence) -> (Verdict, String) {
    let behind = PARTS.map(|part| (part, e.difference(&format!("full-1of{part}"), &format!("qv8-1of{part}"))));
    let list = behind.map(|(part, d)| format!("1/{part}: {}", said(d)));
    let verdicts = behind.map(|(part, d)| {
        let both_guess = e.guesses(&format!("full-1of{part}")) && e.guesses(&format!("qv8-1of{part}"));
        if both_guess && d.is_some() { Verdict::Undecided } else { below(d, SMALL) }
    });
    let measured = format!(
        "Full fine-tuning against Q+V r=8 on a part of the reviews: {}. Supported means that LoRA is nowhere {SMALL} point behind, and that one of the two \
         is better than guessing.",
        list.join("; ")
    );
    (all(&verdicts), measured)
}

fn rates(e: &Evidence) -> (Verdict, String) {
    let differences = [e.difference("qv8", "qv8-slow"), e.difference("full", "full-fast")];
    let [lora, full] = differences.map(said);
    let measured =
        format!("LoRA at its own rate against full fine-tuning's: {lora}. Full fine-tuning at its own rate against LoRA's: {full}.");
    (all(&differences.map(above)), measured)
}

fn minutes(e: &Evidence) -> (Verdict, String) {
    let one = |key: &&str| {
        let of = e.of(key);
        let mean = of.iter().map(|r| r.seconds).sum::<f64>() / of.len().max(1) as f64 / 60.0;
        (!of.is_empty()).then(|| format!("{} {mean:.1}", e.name(key)))
    };
    let list: Vec<String> = ["qv4", "qv8", "qv16", "attention", "all", "full"].iter().filter_map(one).collect();
    (Verdict::NotMeasured, format!("Minutes of training here, on another machine: {}.", list.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_is_judged_by_the_measured_times() {
        let verdict = |merged: Option<Cost>, adapters: Option<Cost>| {
            let time = |method: &str, cost| Latency { method: method.into(), seconds: [1.0; 3], ratio: [1.0; 3], cost };
            let times = vec![time("merged LoRA", merged), time("adapters", adapters)];
            let (counts, start, spectra, norms) = (Vec::new(), None, [Vec::new(), Vec::new()], Vec::new());
            latency(&Evidence { rows: &[], results: &[], labels: &[], counts, start, spectra, norms, latency: times }).0
        };
        assert_eq!(verdict(Some(Cost::Nothing), Some(Cost::Time)), Verdict::Supported);
        assert_eq!(verdict(Some(Cost::Time), Some(Cost::Time)), Verdict::NotSupported);
        assert_eq!(verdict(Some(Cost::Nothing), Some(Cost::Nothing)), Verdict::NotSupported);
        assert_eq!(verdict(Some(Cost::Undecided), Some(Cost::Time)), Verdict::Undecided);
        // Fewer than ten rounds.
        assert_eq!(verdict(None, None), Verdict::NotJudged);
    }
}
