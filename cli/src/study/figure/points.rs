//! Points with names. The names are placed so that they do not overlap.

use super::draw::{Anchor, LARGE, WIDTH, fit, line, marker, text, width};
use super::frame::{self, Frame};
use super::plot::{Figure, Point};
use super::scale::{grouped, shown};

/// Distances between a name and its point that are tried, and the number of directions.
const DISTANCES: [f64; 8] = [9.0, 18.0, 30.0, 45.0, 62.0, 82.0, 105.0, 130.0];
const DIRECTIONS: usize = 16;
/// Rounds of placement. In each round every name may move again.
const ROUNDS: usize = 4;
/// A name farther away than this gets a line to its point.
const NEAR: f64 = 12.0;

/// Left, top, right, bottom.
type Rect = [f64; 4];

/// A placed name.
#[derive(Clone)]
struct Label {
    at: (f64, f64),
    anchor: Anchor,
    area: Rect,
    distance: f64,
}

/// Draws the points and returns the height, `None` if there is nothing to draw.
pub(super) fn draw(out: &mut String, figure: &Figure, points: &[(String, Point)]) -> Option<f64> {
    let scales = (figure.x.scale, figure.y.scale);
    let known = |(name, p): &(String, Point)| Some((name.clone(), shown(p, scales)?));
    let points: Vec<(String, Point)> = points.iter().filter_map(known).collect();
    let xs: Vec<f64> = points.iter().map(|(_, p)| p.x).collect();
    let ys: Vec<f64> = points.iter().flat_map(|(_, p)| [Some(p.y), p.interval.map(|i| i.0), p.interval.map(|i| i.1)]).flatten().collect();
    let frame = frame::draw(out, figure, &xs, &ys, 0.0)?;
    let at: Vec<(f64, f64)> = points.iter().map(|(_, p)| (frame.x.at(p.x), frame.y.at(p.y))).collect();
    let names: Vec<String> = points.iter().map(|(name, _)| fit(name, 0.6 * WIDTH)).collect();
    let labels = placed(&names, &at, &obstacles(&points, &at, &frame), frame.bounds());
    for (label, at) in labels.iter().zip(&at).filter(|(label, _)| label.distance > NEAR) {
        line(out, "leader", *at, label.at);
    }
    for ((_, p), (x, _)) in points.iter().zip(&at) {
        if let Some((low, high)) = p.interval {
            line(out, "interval c0", (*x, frame.y.at(low)), (*x, frame.y.at(high)));
        }
    }
    for ((name, p), at) in points.iter().zip(&at) {
        marker(out, 0, *at, &format!("{name}: {} at {}", grouped(p.y, 3), grouped(p.x, 0)));
    }
    for (label, name) in labels.iter().zip(&names) {
        let gap = match label.anchor {
            _ if label.distance <= NEAR => 0.0,
            Anchor::Start => 3.0,
            Anchor::Middle => 0.0,
            Anchor::End => -3.0,
        };
        let middle = (label.area[1] + label.area[3]) / 2.0;
        text(out, (label.at.0 + gap, middle), "label", label.anchor, name);
    }
    Some(frame.height())
}

impl Label {
    /// A name of width `width`, at `distance` from a point in direction `k`.
    fn new(width: f64, (px, py): (f64, f64), distance: f64, k: usize) -> Label {
        let angle = std::f64::consts::TAU * k as f64 / DIRECTIONS as f64;
        let (dx, dy) = (angle.cos(), angle.sin());
        let (x, y) = (px + dx * distance, py + dy * distance);
        let half = 0.55 * LARGE;
        let (anchor, left) = match dx {
            dx if dx > 0.3 => (Anchor::Start, x),
            dx if dx < -0.3 => (Anchor::End, x - width),
            _ => (Anchor::Middle, x - width / 2.0),
        };
        let middle = if anchor == Anchor::Middle { y + dy.signum() * half } else { y };
        Label { at: (x, y), anchor, area: [left - 3.0, middle - half, left + width + 3.0, middle + half], distance }
    }
}

/// Areas that names must not cover: markers and intervals.
fn obstacles(points: &[(String, Point)], at: &[(f64, f64)], frame: &Frame) -> Vec<Rect> {
    let marker = at.iter().map(|(x, y)| [x - 5.0, y - 5.0, x + 5.0, y + 5.0]);
    let bar = points.iter().zip(at).filter_map(|((_, p), (x, _))| {
        let (low, high) = p.interval?;
        Some([x - 2.0, frame.y.at(high), x + 2.0, frame.y.at(low)])
    });
    marker.chain(bar).collect()
}

/// Places every name: each takes the cheapest place, given the places of the others. Repeated for a few rounds.
fn placed(names: &[String], at: &[(f64, f64)], obstacles: &[Rect], bounds: Rect) -> Vec<Label> {
    let mut placed: Vec<Option<Label>> = vec![None; names.len()];
    // From the top, so that names of close points keep the order of the points.
    let mut order: Vec<usize> = (0..names.len()).collect();
    order.sort_by(|&a, &b| at[a].1.total_cmp(&at[b].1));
    for _ in 0..ROUNDS {
        for &i in &order {
            let tried = DISTANCES.iter().flat_map(|d| (0..DIRECTIONS).map(|k| Label::new(width(&names[i]), at[i], *d, k)));
            let costs = tried.map(|label| (cost(&label, i, at, &placed, obstacles, bounds), label));
            placed[i] = costs.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, label)| label);
        }
    }
    placed.into_iter().flatten().collect()
}

fn cost(label: &Label, i: usize, at: &[(f64, f64)], placed: &[Option<Label>], obstacles: &[Rect], bounds: Rect) -> f64 {
    let area = (label.area[2] - label.area[0]) * (label.area[3] - label.area[1]);
    let outside = area - overlap(label.area, [bounds[0], bounds[1] - 4.0, WIDTH, bounds[3]]);
    let mut cost = label.distance + if label.anchor == Anchor::Start { 0.0 } else { 2.0 } + 5.0 * outside;
    cost += obstacles.iter().map(|o| 4.0 * overlap(label.area, *o)).sum::<f64>();
    for (j, other) in placed.iter().enumerate().filter(|(j, _)| *j != i) {
        let Some(other) = other else { continue };
        cost += 5.0 * overlap(label.area, other.area);
        cost += 40.0 * (through(at[i], label, other.area) + through(at[j], other, label.area)) as f64;
        if label.distance > NEAR && other.distance > NEAR && cross((at[i], label.at), (at[j], other.at)) {
            cost += 100.0;
        }
    }
    // A line that passes another point would seem to belong to it.
    let near = |p: &&(f64, f64)| **p != at[i] && through(at[i], label, [p.0 - 7.0, p.1 - 7.0, p.0 + 7.0, p.1 + 7.0]) > 0;
    cost + 60.0 * at.iter().filter(near).count() as f64
}

fn overlap(a: Rect, b: Rect) -> f64 {
    (a[2].min(b[2]) - a[0].max(b[0])).max(0.0) * (a[3].min(b[3]) - a[1].max(b[1])).max(0.0)
}

/// Number of eight sample points on the line from a point to its name that are inside `area`.
fn through((x, y): (f64, f64), label: &Label, area: Rect) -> usize {
    if label.distance <= NEAR {
        return 0;
    }
    let on = |k: usize| (x + (label.at.0 - x) * k as f64 / 8.0, y + (label.at.1 - y) * k as f64 / 8.0);
    (1..=8).map(on).filter(|p| (area[0]..area[2]).contains(&p.0) && (area[1]..area[3]).contains(&p.1)).count()
}

type Segment = ((f64, f64), (f64, f64));

fn cross(a: Segment, b: Segment) -> bool {
    let side = |(p, q): Segment, r: (f64, f64)| (q.0 - p.0) * (r.1 - p.1) - (q.1 - p.1) * (r.0 - p.0);
    side(a, b.0) * side(a, b.1) < 0.0 && side(b, a.0) * side(b, a.1) < 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_close_points_do_not_overlap() {
        let at: Vec<(f64, f64)> = (0..6).map(|i| (300.0 + 4.0 * f64::from(i), 100.0 + 3.0 * f64::from(i * i % 7))).collect();
        let names: Vec<String> = (0..6).map(|i| format!("configuration r={i}")).collect();
        let markers: Vec<Rect> = at.iter().map(|(x, y)| [x - 5.0, y - 5.0, x + 5.0, y + 5.0]).collect();
        let bounds = [40.0, 30.0, 500.0, 300.0];
        let labels = placed(&names, &at, &markers, bounds);
        for (i, a) in labels.iter().enumerate() {
            assert!(labels[..i].iter().all(|b| overlap(a.area, b.area) == 0.0), "label {i}");
            assert!(markers.iter().all(|m| overlap(a.area, *m) < 3.0), "label {i} covers a marker");
            assert!(a.area[0] >= bounds[0] && a.area[2] <= WIDTH && a.area[3] <= bounds[3]);
        }
    }

    #[test]
    fn a_point_alone_has_its_name_beside_it() {
        let labels = placed(&["name".into()], &[(200.0, 100.0)], &[], [40.0, 30.0, 500.0, 300.0]);
        assert_eq!((labels[0].at, labels[0].anchor), ((209.0, 100.0), Anchor::Start));
    }

    #[test]
    fn segments_cross() {
        assert!(cross(((0.0, 0.0), (2.0, 2.0)), ((0.0, 2.0), (2.0, 0.0))));
        assert!(!cross(((0.0, 0.0), (2.0, 2.0)), ((3.0, 0.0), (5.0, 1.0))));
    }
}
