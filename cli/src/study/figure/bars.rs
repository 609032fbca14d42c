//! Horizontal bars, or dots if all values are of similar size.

use super::draw::{Anchor, LINE, WIDTH, line, marker, rect, shifted, text, widest, width, wrap};
use super::frame::{self, fitting};
use super::legend;
use super::plot::{AxisScale, Bar, Figure};
use super::scale::{AxisMap, decimals, drawable, extent, grouped, interval};

/// Width reserved for a name.
const NAME: f64 = 160.0;
/// Half the height of a bar.
const HALF: f64 = 7.0;

/// Draws the bars and returns the height, `None` if there is nothing to draw.
pub(super) fn draw(out: &mut String, figure: &Figure, bars: &[Bar]) -> Option<f64> {
    let scale = figure.x.scale;
    let bars: Vec<Bar> = bars
        .iter()
        .map(|b| Bar {
            name: b.name.clone(),
            value: drawable(b.value, scale).unwrap_or(f64::NAN),
            interval: interval(b.interval, scale),
            mark: b.mark.and_then(|m| drawable(m, scale)),
        })
        .collect();
    let ends = |b: &Bar| [Some(b.value), b.interval.map(|i| i.0), b.interval.map(|i| i.1), b.mark];
    let mut values: Vec<f64> = bars.iter().flat_map(ends).flatten().filter(|v| !v.is_nan()).collect();
    let dots = scale == AxisScale::Log || of_a_size(&values);
    if !values.is_empty() && !dots {
        values.push(0.0);
    }
    let names: Vec<Vec<String>> = bars.iter().map(|b| wrap(&b.name, NAME)).collect();
    let left = 10.0 + widest(names.iter().flatten()).max(width(&figure.y.label).min(NAME));
    let labels = labels(&bars);
    let right = WIDTH - 14.0 - widest(&labels);
    let x = fitting(&values, scale, right - left)?.between(left, right);
    let top = key(out, &bars, dots);
    frame::y_label(out, figure, left - 10.0, top, Anchor::End);
    let row = if names.iter().any(|n| n.len() > 1) { 2.0 * LINE } else { 1.4 * LINE };
    let first = top + LINE + 6.0;
    let bottom = first + row * bars.len() as f64 + 4.0;
    for (value, _) in &x.ticks.major {
        line(out, "grid", (x.at(*value), first), (x.at(*value), bottom));
    }
    // Next to a mark, a value could be read as the value of the mark. Then all values are printed in a column at the right edge.
    let column = (dots || bars.iter().any(|b| b.mark.is_some())).then_some(WIDTH);
    for (i, bar) in bars.iter().enumerate() {
        let y = first + row * (i as f64 + 0.5);
        name(out, &names[i], (left - 10.0, y));
        let end = one(out, bar, &labels[i], dots, &x, y);
        match column {
            Some(right) => text(out, (right, y), "value", Anchor::End, &labels[i]),
            None => text(out, ((end + 8.0).min(WIDTH - width(&labels[i])), y), "value", Anchor::Start, &labels[i]),
        }
    }
    frame::x_axis(out, figure, &x, bottom);
    Some(bottom + 2.0 * LINE + 16.0)
}

/// Whether bars from 0 would look alike: all values are more than half of the largest.
fn of_a_size(values: &[f64]) -> bool {
    extent(values.iter().copied()).is_some_and(|(low, high)| low > 0.5 * high)
}

/// The values as text, rounded to a tenth of the narrowest interval, or to three digits if there are no intervals.
fn labels(bars: &[Bar]) -> Vec<String> {
    let half = bars
        .iter()
        .filter_map(|b| b.interval.map(|(low, high)| (high - low) / 2.0))
        .filter(|half| *half > 0.0)
        .fold(f64::INFINITY, f64::min);
    let largest = bars.iter().map(|b| b.value.abs()).fold(0.0, f64::max);
    let step = if half.is_finite() { half / 10.0 } else { largest / 100.0 };
    let digits = if step > 0.0 { decimals(step).min(6) } else { 0 };
    bars.iter().map(|b| if b.value.is_nan() { "no data".to_string() } else { grouped(b.value, digits) }).collect()
}

/// Draws the legend if there are marks. Returns its height.
fn key(out: &mut String, bars: &[Bar], dots: bool) -> f64 {
    if bars.iter().all(|b| b.mark.is_none()) {
        return 0.0;
    }
    let measured = if bars.iter().any(|b| b.interval.is_some()) { "measured, 95 % interval" } else { "measured" };
    let names = [measured.to_string(), "reference".to_string()];
    legend::draw(out, &names, |out, i, (x, y)| match (i, dots) {
        (0, true) => {
            line(out, "interval c0", (x, y), (x + legend::SAMPLE, y));
            marker(out, 0, (x + legend::SAMPLE / 2.0, y), "");
        }
        (0, false) => rect(out, "class=\"bar\"", [x, y - 5.0, legend::SAMPLE, 10.0]),
        _ => line(out, "reference", (x + legend::SAMPLE / 2.0, y - 8.0), (x + legend::SAMPLE / 2.0, y + 8.0)),
    })
}

fn name(out: &mut String, lines: &[String], at: (f64, f64)) {
    match lines {
        [only] => text(out, at, "", Anchor::End, only),
        lines => lines.iter().enumerate().for_each(|(i, l)| shifted(out, at, [-0.22, 0.92][i.min(1)], "", Anchor::End, l)),
    }
}

/// Draws the bar or the dot. Returns its right end.
fn one(out: &mut String, bar: &Bar, label: &str, dots: bool, x: &AxisMap, y: f64) -> f64 {
    if dots {
        line(out, "guide", (x.start, y), (x.end, y));
    }
    if bar.value.is_nan() {
        return x.start;
    }
    let value = x.at(bar.value);
    let base = if dots { value } else { x.at(0.0) };
    if !dots {
        rect(out, "class=\"bar\"", [base.min(value), y - HALF, (value - base).abs(), 2.0 * HALF]);
    }
    let ends = bar.interval.map(|(low, high)| (x.at(low), x.at(high)));
    if let Some((low, high)) = ends {
        line(out, if dots { "interval c0" } else { "whisker" }, (low, y), (high, y));
    }
    if let Some(mark) = bar.mark {
        line(out, "reference", (x.at(mark), y - 9.0), (x.at(mark), y + 9.0));
    }
    if dots {
        marker(out, 0, (value, y), &format!("{}: {label}", bar.name));
    }
    value.max(base).max(ends.map_or(base, |(_, high)| high))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::figure::{Axis, Plot};

    fn figure(values: &[f64]) -> Figure {
        let bar = |v: &f64| Bar { name: format!("is {v}"), value: *v, interval: Some((v - 1.0, v + 1.0)), mark: None };
        let axis = |label: &str| Axis { label: label.into(), scale: AxisScale::Linear };
        Figure {
            title: "t".into(),
            caption: "c".into(),
            x: axis("time (ms)"),
            y: axis("method"),
            plot: Plot::Bars(values.iter().map(bar).collect()),
        }
    }

    /// Widths of the bars.
    fn widths(svg: &str) -> Vec<f64> {
        svg.split("class=\"bar\"")
            .skip(1)
            .map(|b| b.split("width=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap())
            .collect()
    }

    #[test]
    fn bars_are_as_long_as_their_values() {
        let widths = widths(&figure(&[10.0, 40.0, -5.0]).svg());
        assert!((widths[1] / widths[0] - 4.0).abs() < 0.02 && (widths[0] / widths[2] - 2.0).abs() < 0.02, "{widths:?}");
    }

    #[test]
    fn values_of_a_size_are_dots_with_an_axis_of_their_own() {
        let svg = figure(&[82.0, 86.5]).svg();
        assert!(widths(&svg).is_empty() && svg.contains("<circle"), "{svg}");
        assert!(svg.contains(">86.5<") && !svg.contains(">0<"), "{svg}");
    }

    #[test]
    fn a_bar_without_a_value_says_so() {
        let svg = figure(&[3.0, f64::NAN]).svg();
        assert_eq!(svg.matches("no data").count(), 1);
        assert!(svg.contains(">is 3<"));
    }

    #[test]
    fn long_names_take_two_lines() {
        assert_eq!(wrap("all attention + FFN r=8", NAME), ["all attention", "+ FFN r=8"]);
    }
}
