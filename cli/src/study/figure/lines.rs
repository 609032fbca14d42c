//! Lines, with their intervals as bars or bands.

use super::draw::{COLOURS, line, marker, number};
use super::frame::{self, Frame};
use super::legend;
use super::plot::{AxisScale, Figure, Point, Series};
use super::scale::{Ticks, grouped, shown};

/// Number of buckets of the x axis. Points in the same bucket are drawn as their mean.
const BUCKETS: f64 = 100.0;
/// A line with at most this many points has a marker at each; a longer one has `MARKERS` markers.
const SPARSE: usize = 20;
const MARKERS: usize = 5;
/// Up to this many intervals are drawn as bars, more as a band.
const BARS: usize = 12;

/// Draws the lines and returns the height, `None` if there is nothing to draw.
pub(super) fn draw(out: &mut String, figure: &Figure, series: &[Series]) -> Option<f64> {
    let scales = (figure.x.scale, figure.y.scale);
    let lines: Vec<Vec<Point>> = series.iter().map(|s| s.points.iter().filter_map(|p| shown(p, scales)).collect()).collect();
    let xs: Vec<f64> = lines.iter().flatten().map(|v| v.x).collect();
    let lines: Vec<Vec<Point>> =
        lines.iter().map(|line| Some(thinned(line, &Ticks::of(&xs, scales.0, 6)?, scales))).collect::<Option<_>>()?;
    let ends = |v: &Point| v.interval.map_or(vec![v.y], |(low, high)| vec![v.y, low, high]);
    let ys: Vec<f64> = lines.iter().flatten().flat_map(ends).collect();
    let name = |(s, line): (&Series, &Vec<Point>)| if line.is_empty() { format!("{} (no data)", s.name) } else { s.name.clone() };
    let names: Vec<String> = series.iter().zip(&lines).map(name).collect();
    let top = legend::draw(out, &names, |out, i, (x, y)| {
        line(out, &format!("line c{}", i % COLOURS), (x, y), (x + legend::SAMPLE, y));
        marker(out, i, (x + legend::SAMPLE / 2.0, y), "");
    });
    let frame = frame::draw(out, figure, &xs, &ys, top)?;
    for (i, vertices) in lines.iter().enumerate() {
        intervals(out, &frame, i, vertices);
    }
    for (i, vertices) in lines.iter().enumerate() {
        path(out, &frame, i, vertices);
    }
    // Markers last, so that no line covers them.
    for (i, (vertices, s)) in lines.iter().zip(series).enumerate() {
        markers(out, &frame, i, vertices, &s.name);
    }
    Some(frame.height())
}

/// Replaces the points of each bucket by their mean, taken on the scales of the axes. A line of thousands of steps stays legible and small.
fn thinned(line: &[Point], x: &Ticks, scales: (AxisScale, AxisScale)) -> Vec<Point> {
    let bucket = |v: &Point| (BUCKETS * x.share(v.x)) as usize;
    line.chunk_by(|a, b| bucket(a) == bucket(b)).map(|chunk| mean(chunk, scales)).collect()
}

fn mean(chunk: &[Point], (x, y): (AxisScale, AxisScale)) -> Point {
    let mean = |scale, values: Vec<f64>| {
        let n = values.len() as f64;
        match scale {
            AxisScale::Linear => values.iter().sum::<f64>() / n,
            AxisScale::Log => (values.iter().map(|v| v.ln()).sum::<f64>() / n).exp(),
        }
    };
    if let [only] = chunk {
        return only.clone();
    }
    let ends: Option<Vec<(f64, f64)>> = chunk.iter().map(|v| v.interval).collect();
    Point {
        x: mean(x, chunk.iter().map(|v| v.x).collect()),
        y: mean(y, chunk.iter().map(|v| v.y).collect()),
        interval: ends.map(|ends| (mean(y, ends.iter().map(|e| e.0).collect()), mean(y, ends.iter().map(|e| e.1).collect()))),
    }
}

fn position(frame: &Frame, x: f64, y: f64) -> String {
    format!("{} {}", number(frame.x.at(x)), number(frame.y.at(y)))
}

fn path(out: &mut String, frame: &Frame, i: usize, vertices: &[Point]) {
    let d: Vec<String> = vertices.iter().map(|v| position(frame, v.x, v.y)).collect();
    if d.len() > 1 {
        out.push_str(&format!("<path class=\"line c{}\" d=\"M{}\"/>\n", i % COLOURS, d.join("L")));
    }
}

fn intervals(out: &mut String, frame: &Frame, i: usize, vertices: &[Point]) {
    let known: Vec<(f64, f64, f64)> = vertices.iter().filter_map(|v| v.interval.map(|(low, high)| (v.x, low, high))).collect();
    if known.len() > BARS {
        let upper = known.iter().map(|(x, _, high)| position(frame, *x, *high));
        let lower = known.iter().rev().map(|(x, low, _)| position(frame, *x, *low));
        let d: Vec<String> = upper.chain(lower).collect();
        out.push_str(&format!("<path class=\"band c{}\" d=\"M{}Z\"/>\n", i % COLOURS, d.join("L")));
        return;
    }
    for (x, low, high) in known {
        let x = frame.x.at(x);
        line(out, &format!("interval c{}", i % COLOURS), (x, frame.y.at(low)), (x, frame.y.at(high)));
    }
}

fn markers(out: &mut String, frame: &Frame, i: usize, vertices: &[Point], name: &str) {
    let n = vertices.len();
    let chosen: Vec<&Point> = match n {
        0..=SPARSE => vertices.iter().collect(),
        // Shifted from line to line, so that markers of lines that overlap do not overlap.
        _ => (0..MARKERS).map(|k| &vertices[((k * 7 + 1 + i % 7) * n / (MARKERS * 7 + 1)).min(n - 1)]).collect(),
    };
    for v in chosen {
        let told = format!("{name}: {} at {}", grouped(v.y, 3), grouped(v.x, 0));
        marker(out, i, (frame.x.at(v.x), frame.y.at(v.y)), &told);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::figure::{Axis, Plot};

    fn point(x: f64, y: f64) -> Point {
        Point { x, y, interval: None }
    }

    fn figure(scale: AxisScale, points: Vec<Point>) -> Figure {
        let axis = |label: &str| Axis { label: label.into(), scale };
        let plot = Plot::Lines(vec![Series { name: "a".into(), points }]);
        Figure { title: "t".into(), caption: "c".into(), x: axis("x"), y: axis("y"), plot }
    }

    /// The vertices of the line in the plot, the first line being the legend's sample.
    fn path(svg: &str) -> Vec<(f64, f64)> {
        let d = svg.split("class=\"line c0\" d=\"M").nth(2).unwrap().split('"').next().unwrap().to_string();
        let pair = |p: &str| p.split_once(' ').map(|(x, y)| (x.parse().unwrap(), y.parse().unwrap())).unwrap();
        d.split('L').map(pair).collect()
    }

    #[test]
    fn points_land_where_the_scale_says() {
        let at = path(&figure(AxisScale::Linear, vec![point(0.0, 0.0), point(5.0, 2.0), point(10.0, 10.0)]).svg());
        let share = |a: f64, b: f64, c: f64| (b - a) / (c - a);
        assert!((share(at[0].0, at[1].0, at[2].0) - 0.5).abs() < 1e-3 && (share(at[0].1, at[1].1, at[2].1) - 0.2).abs() < 1e-3, "{at:?}");
        assert!(at[0].0 < at[2].0 && at[0].1 > at[2].1, "x grows to the right and y upwards");
        let at = path(&figure(AxisScale::Log, vec![point(1.0, 0.01), point(100.0, 0.1), point(1000.0, 100.0)]).svg());
        assert!((share(at[0].0, at[1].0, at[2].0) - 2.0 / 3.0).abs() < 1e-3 && (share(at[0].1, at[1].1, at[2].1) - 0.25).abs() < 1e-3);
    }

    #[test]
    fn a_long_line_is_thinned_to_means() {
        let noisy = |i: usize| point(i as f64, if i.is_multiple_of(2) { 1.0 } else { 3.0 });
        let at = path(&figure(AxisScale::Linear, (0..5000).map(noisy).chain([point(5000.0, 0.0)]).collect()).svg());
        assert!((84..=101).contains(&at.len()), "{} vertices", at.len());
        let inner = &at[1..at.len() - 2];
        assert!(inner.iter().all(|p| (p.1 - inner[0].1).abs() < 6.0), "means of 1 and 3 are near 2");
        // On a log axis the first points are far apart: none of these is averaged away.
        let at = path(&figure(AxisScale::Log, (1..=768).map(|i| point(i as f64, 1.0 / i as f64)).collect()).svg());
        assert!(at.len() < 80 && (at[1].0 - at[0].0) > 30.0, "{at:?}");
    }

    #[test]
    fn intervals_are_bars_when_few_and_a_band_when_many() {
        let with = |n: usize| (0..n).map(|i| Point { x: i as f64, y: 1.0, interval: Some((0.5, 2.0)) }).collect();
        let few = figure(AxisScale::Linear, with(5)).svg();
        assert_eq!((few.matches("class=\"interval").count(), few.matches("class=\"band").count()), (5, 0));
        let many = figure(AxisScale::Linear, with(50)).svg();
        assert_eq!((many.matches("class=\"interval").count(), many.matches("class=\"band").count()), (0, 1));
    }
}
