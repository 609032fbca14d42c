//! The axes of a plot.

use super::draw::{Anchor, LARGE, LINE, WIDTH, fit, line, number, text, width};
use super::plot::{AxisScale, Figure};
use super::scale::{AxisMap, Ticks};

/// Height of the area inside the axes.
const HEIGHT: f64 = 270.0;
/// Length of a tick.
const TICK: f64 = 5.0;

/// Both axes with their positions.
pub(super) struct Frame {
    pub x: AxisMap,
    pub y: AxisMap,
}

impl Frame {
    /// Left, top, right and bottom of the plot.
    pub fn bounds(&self) -> [f64; 4] {
        [self.x.start, self.y.end, self.x.end, self.y.start]
    }

    /// Height of a figure whose last element is this frame.
    pub fn height(&self) -> f64 {
        self.y.start + 2.0 * LINE + 16.0
    }
}

/// Draws the axes below `top`. All values must be drawable. `None` if there are no values.
pub(super) fn draw(out: &mut String, figure: &Figure, xs: &[f64], ys: &[f64], top: f64) -> Option<Frame> {
    let y = Ticks::of(ys, figure.y.scale, 6)?;
    let left = 10.0 + y.widest_label();
    let x = fitting(xs, figure.x.scale, WIDTH - left - 20.0)?;
    let right = WIDTH - 4.0 - x.major.last().map_or(0.0, |(_, label)| width(label) / 2.0);
    y_label(out, figure, 0.0, top, Anchor::Start);
    let frame = Frame { x: x.between(left, right), y: y.between(top + LINE + 12.0 + HEIGHT, top + LINE + 12.0) };
    grid(out, &frame);
    x_axis(out, figure, &frame.x, frame.y.start);
    Some(frame)
}

/// Ticks for an axis of length `length`: the largest number of ticks whose labels do not overlap.
pub(super) fn fitting(values: &[f64], scale: AxisScale, length: f64) -> Option<Ticks> {
    let fits = |ticks: &Ticks| {
        let widest = ticks.widest_label();
        (widest + 14.0) * ticks.major.len() as f64 <= length + widest
    };
    let tried: Vec<Ticks> = (2..=7).rev().map_while(|most| Ticks::of(values, scale, most)).collect();
    tried.iter().find(|ticks| fits(ticks)).or(tried.last()).cloned()
}

/// The label of the y axis, printed horizontally above it.
pub(super) fn y_label(out: &mut String, figure: &Figure, x: f64, top: f64, anchor: Anchor) {
    let room = if anchor == Anchor::End { x } else { WIDTH - x };
    text(out, (x, top + 0.6 * LARGE), "axis-label", anchor, &fit(&figure.y.label, room));
}

/// Grid lines at the ticks of y, with labels.
fn grid(out: &mut String, frame: &Frame) {
    let [left, _, right, _] = frame.bounds();
    for (value, label) in &frame.y.ticks.major {
        let y = frame.y.at(*value);
        line(out, "grid", (left, y), (right, y));
        text(out, (left - 8.0, y), "tick", Anchor::End, label);
    }
}

/// The x axis at the height `y`: its line, ticks, labels and name.
pub(super) fn x_axis(out: &mut String, figure: &Figure, x: &AxisMap, y: f64) {
    line(out, "axis", (x.start, y), (x.end, y));
    let tick = |v: f64, length: f64| format!("M{} {}v{}", number(x.at(v)), number(y), number(length));
    let major = x.ticks.major.iter().map(|(v, _)| tick(*v, TICK));
    let ticks: String = major.chain(x.ticks.minor.iter().map(|v| tick(*v, 0.6 * TICK))).collect();
    out.push_str(&format!("<path class=\"axis\" d=\"{ticks}\"/>\n"));
    for (value, label) in &x.ticks.major {
        text(out, (x.at(*value), y + TICK + 12.0), "tick", Anchor::Middle, label);
    }
    x_label(out, figure, (x.start + x.end) / 2.0, y + LINE + 20.0);
}

/// The label of the x axis, centred at `middle` if there is room.
pub(super) fn x_label(out: &mut String, figure: &Figure, middle: f64, y: f64) {
    let label = fit(&figure.x.label, WIDTH);
    let half = width(&label) / 2.0;
    text(out, (middle.clamp(half, WIDTH - half), y), "axis-label", Anchor::Middle, &label);
}

/// Draws a figure without data. Returns its height.
pub(super) fn empty(out: &mut String, figure: &Figure) -> f64 {
    let (top, bottom) = (LINE + 12.0, LINE + 112.0);
    y_label(out, figure, 0.0, 0.0, Anchor::Start);
    line(out, "axis", (0.0, bottom), (WIDTH, bottom));
    text(out, (WIDTH / 2.0, (top + bottom) / 2.0), "quiet", Anchor::Middle, "no data");
    x_label(out, figure, WIDTH / 2.0, bottom + 20.0);
    bottom + LINE + 16.0
}
