//! The legend: the name of each colour and marker.

use super::draw::{Anchor, LINE, WIDTH, fit, text, widest};

/// Width of the sample of a line or marker.
pub(super) const SAMPLE: f64 = 26.0;
/// Gap between a sample and its name, and between columns.
const GAP: f64 = 5.0;
const BETWEEN: f64 = 12.0;

/// Draws `names` in as many columns as fit. `sample` draws the line or marker of name i from a point at its left. Returns the height.
pub(super) fn draw(out: &mut String, names: &[String], mut sample: impl FnMut(&mut String, usize, (f64, f64))) -> f64 {
    if names.is_empty() {
        return 0.0;
    }
    let columns = (1..=names.len()).map(|rows| (rows, starts(names, rows)));
    let (rows, starts) = columns.into_iter().find(|(_, starts)| starts.last() <= Some(&WIDTH)).unwrap_or((names.len(), vec![0.0]));
    for (i, name) in names.iter().enumerate() {
        let (x, y) = (starts[i / rows], ((i % rows) as f64 + 0.5) * LINE);
        sample(out, i, (x, y));
        text(out, (x + SAMPLE + GAP, y), "", Anchor::Start, &fit(name, WIDTH - x - SAMPLE - GAP));
    }
    rows as f64 * LINE + 12.0
}

/// Left ends of columns with `rows` names each, and the right end of the last one.
fn starts(names: &[String], rows: usize) -> Vec<f64> {
    let mut starts = vec![0.0];
    for (i, column) in names.chunks(rows).enumerate() {
        let between = if (i + 1) * rows < names.len() { BETWEEN } else { 0.0 };
        starts.push(starts[i] + SAMPLE + GAP + widest(column) + between);
    }
    starts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows, and columns, of a legend.
    fn shape(names: &[&str]) -> (usize, usize) {
        let names: Vec<String> = names.iter().map(|n| n.to_string()).collect();
        let mut at = Vec::new();
        draw(&mut String::new(), &names, |_, _, place| at.push(place));
        let count = |of: &dyn Fn(&(f64, f64)) -> f64| {
            let mut values: Vec<f64> = at.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            values.dedup();
            values.len()
        };
        (count(&|p| p.1), count(&|p| p.0))
    }

    #[test]
    fn names_stand_in_as_few_rows_as_fit() {
        assert_eq!(shape(&["a", "b", "c"]), (1, 3));
        let rows = [
            "classification head only",
            "Q+V r=4",
            "Q+V r=8",
            "Q+V r=16",
            "all attention r=8",
            "all attention + FFN r=8",
            "full fine-tuning",
        ];
        assert_eq!(shape(&rows), (4, 2));
        assert_eq!(shape(&["a name that is as long as the whole figure is wide, and then some"; 2]), (2, 1));
        assert_eq!(shape(&[]), (0, 0));
    }
}
