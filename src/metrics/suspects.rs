//! Labels that a model doubts: confident learning. Northcutt, Jiang & Chuang 2021, <https://arxiv.org/abs/1911.00068>, section 3.

use super::check;
use crate::Result;

/// A text whose label is probably wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Suspect {
    /// Index of the text.
    pub index: usize,
    /// Its label.
    pub label: u32,
    /// The class that it probably has.
    pub suggested: u32,
    /// Probability of its label.
    pub label_probability: f64,
    /// Probability of the suggested class.
    pub probability: f64,
    /// Probability of the label minus the largest of another class, in [−1, 0): the lower, the more doubtful.
    pub margin: f64,
}

/// How far below its threshold a probability reaches it: the threshold is a rounded mean. cleanlab's number.
const ROUNDING: f64 = 1e-6;

/// The texts whose labels are doubtful, the most doubtful first. `probabilities` `[N][C]` must be of models that were not trained on these texts
/// with these `labels` `[N]`.
///
/// The threshold of class j is the mean probability of j over the texts with label j: tⱼ = mean { p(j | x) : x has label j } (equation 2). A text
/// probably has the class with the largest probability among the classes with p(j | x) ≥ tⱼ (equation 1). If there is such a class and it is not the
/// label, the label is doubtful. A class that no text has as its label is never suggested. The order is that of the paper's normalised margin.
///
/// As in cleanlab, and other than in the paper, a label with the largest probability of all is not doubtful. A rare class has a low threshold, which
/// such texts often reach. cleanlab 2.9 differs in one case: if several classes reach their thresholds, it takes the largest probability of all classes.
///
/// # Errors
/// If there are no texts, the lengths differ, a label is not a class, or a number is not finite.
pub fn suspects(probabilities: &[Vec<f64>], labels: &[u32]) -> Result<Vec<Suspect>> {
    let classes = check(probabilities, labels)?;
    let thresholds: Vec<f64> = (0..classes).map(|class| mean_confidence(probabilities, labels, class)).collect();
    let mut found = Vec::new();
    for (index, (row, &label)) in probabilities.iter().zip(labels).enumerate() {
        let confident = (0..classes).filter(|&class| row[class] >= thresholds[class] - ROUNDING);
        let Some(suggested) = confident.max_by(|&a, &b| row[a].total_cmp(&row[b])) else { continue };
        let label_probability = row[label as usize];
        let others = (0..classes).filter(|&class| class != label as usize).map(|class| row[class]);
        let margin = label_probability - others.fold(f64::NEG_INFINITY, f64::max);
        if suggested != label as usize && margin < 0.0 {
            found.push(Suspect { index, label, suggested: suggested as u32, label_probability, probability: row[suggested], margin });
        }
    }
    found.sort_by(|a, b| a.margin.total_cmp(&b.margin));
    Ok(found)
}

/// tⱼ of class j; infinite if no text has this label.
fn mean_confidence(probabilities: &[Vec<f64>], labels: &[u32], class: usize) -> f64 {
    let own: Vec<f64> =
        probabilities.iter().zip(labels).filter(|(_, label)| **label as usize == class).map(|(row, _)| row[class]).collect();
    if own.is_empty() { f64::INFINITY } else { own.iter().sum::<f64>() / own.len() as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_by_hand() {
        // t0 = (0.9 + 0.8 + 0.1) / 3 = 0.6, t1 = (0.7 + 0.3 + 0.5) / 3 = 0.5; no text has class 2, so nobody is told to be of it.
        let rows: Vec<Vec<f64>> = [
            [0.9, 0.1, 0.0], // 0: confident, and its label
            [0.8, 0.1, 0.1], // 0: the same
            [0.1, 0.2, 0.7], // 0: no class reaches its threshold
            [0.2, 0.7, 0.1], // 1: confident, and its label
            [0.6, 0.3, 0.1], // 1: class 0 reaches its threshold exactly
            [0.4, 0.5, 0.1], // 1: its label reaches its threshold exactly
        ]
        .map(Vec::from)
        .into();
        let found = suspects(&rows, &[0, 0, 0, 1, 1, 1]).unwrap();
        let [one] = found[..] else { panic!("{found:?}") };
        assert_eq!((one.index, one.label, one.suggested), (4, 1, 0));
        assert_eq!((one.label_probability, one.probability), (0.3, 0.6));
        assert!((one.margin + 0.3).abs() < 1e-15);
        // t0 = (0.9 + 0.6) / 2 = 0.75, t1 = 0.3: the second text reaches t1 alone, but its label is the most probable.
        assert_eq!(suspects(&[vec![0.9, 0.1], vec![0.6, 0.4], vec![0.7, 0.3]], &[0, 0, 1]).unwrap(), []);
        assert!(suspects(&rows, &[0, 0, 0, 1, 1, 3]).is_err());
        assert!(suspects(&[], &[]).is_err());
    }

    /// Recorded from cleanlab 2.9.0: `find_label_issues(labels, p, filter_by="confident_learning", return_indices_ranked_by="normalized_margin")`.
    #[test]
    fn the_rule_is_cleanlabs() {
        let labels = [2, 0, 0, 0, 2, 2, 2, 1, 1, 1, 0, 1, 1, 0, 2, 0, 2, 2, 0, 0, 1, 1, 2, 1];
        #[rustfmt::skip]
        let rows = [
            [0.019, 0.025, 0.956], [0.896, 0.042, 0.062], [0.514, 0.453, 0.033], [0.551, 0.406, 0.043], [0.466, 0.315, 0.219],
            [0.314, 0.629, 0.057], [0.75, 0.07, 0.18], [0.087, 0.876, 0.037], [0.458, 0.284, 0.258], [0.898, 0.067, 0.035],
            [0.954, 0.032, 0.014], [0.135, 0.814, 0.051], [0.047, 0.948, 0.005], [0.172, 0.818, 0.01], [0.7, 0.034, 0.266],
            [0.164, 0.104, 0.732], [0.541, 0.01, 0.449], [0.035, 0.011, 0.954], [0.444, 0.469, 0.087], [0.953, 0.028, 0.019],
            [0.003, 0.946, 0.051], [0.089, 0.856, 0.055], [0.147, 0.121, 0.732], [0.771, 0.156, 0.073],
        ];
        let found = suspects(&rows.map(Vec::from), &labels).unwrap();
        assert_eq!(found.iter().map(|s| s.index).collect::<Vec<_>>(), [9, 13, 23, 5, 6, 15, 14]);
        let margins = [-0.831, -0.646, -0.615, -0.572, -0.57, -0.568, -0.434];
        assert!(found.iter().zip(margins).all(|(s, margin)| (s.margin - margin).abs() < 1e-12));
    }
}
