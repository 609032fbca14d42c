//! Matrices as colour maps with one common scale.

use super::draw::{Anchor, LINE, WIDTH, fit, number, rect, text, width};
use super::frame;
use super::plot::{AxisScale, Figure, Heat};
use super::scale::{Ticks, drawable, extent};

/// Number of colour levels above the background.
const LEVELS: usize = 12;
/// Gap between maps, and largest side of a map.
const GAP: f64 = 7.0;
const SIDE: f64 = 150.0;
/// Width reserved for the label of the y axis.
const LEFT: f64 = 24.0;
/// Values above this quantile get the strongest colour. Otherwise a few outliers would leave all other cells blank.
const SHARE: f64 = 0.995;

/// Draws the maps and returns the height, `None` if there is nothing to draw.
pub(super) fn draw(out: &mut String, figure: &Figure, maps: &[Heat]) -> Option<f64> {
    let (scale, clipped) = colours(maps)?;
    let (grid, loose) = arranged(maps);
    let bottom = if grid.maps.is_empty() { 0.0 } else { in_grid(out, &grid, &scale) };
    let bottom = if loose.is_empty() { bottom } else { in_rows(out, &loose, &scale, bottom) };
    let middle = number(bottom / 2.0);
    let label = fit(&figure.y.label, bottom.max(100.0));
    text(out, (10.0, bottom / 2.0), &format!("axis-label\" transform=\"rotate(-90 10 {middle})"), Anchor::Middle, &label);
    frame::x_label(out, figure, (LEFT + WIDTH) / 2.0, bottom + 14.0);
    legend(out, &scale, clipped, bottom + LINE + 18.0);
    Some(bottom + 2.0 * LINE + 38.0)
}

/// The common scale, and whether some values are above it.
fn colours(maps: &[Heat]) -> Option<(Ticks, bool)> {
    let mut values: Vec<f64> = maps.iter().flat_map(cells).filter_map(|(_, _, v)| drawable(v, AxisScale::Linear)).collect();
    values.sort_by(f64::total_cmp);
    let (low, most) = extent(values.iter().copied())?;
    let high = values[((values.len() - 1) as f64 * SHARE).ceil() as usize];
    let from = if low >= 0.0 && low < 0.5 * high { 0.0 } else { low };
    let mut scale = Ticks::of(&[from, high], AxisScale::Linear, 4)?;
    if from < high {
        // The smallest value gets the background colour, even if it is not a round number.
        scale.from = from;
        scale.major.retain(|(value, _)| *value >= from - 1e-9 * (high - from));
    }
    let clipped = most > scale.to;
    Some((scale, clipped))
}

/// Maps arranged by the two parts of their names.
#[derive(Default)]
struct Grid<'a> {
    rows: Vec<&'a str>,
    columns: Vec<&'a str>,
    /// Row index, column index, map.
    maps: Vec<(usize, usize, &'a Heat)>,
}

/// The maps that form a grid of at least two rows and columns, and the other maps.
fn arranged(maps: &[Heat]) -> (Grid<'_>, Vec<&Heat>) {
    let names: Vec<(&str, &str)> = maps.iter().filter_map(|map| map.name.rsplit_once(' ')).collect();
    let count = |like: &dyn Fn(&(&str, &str)) -> bool| names.iter().filter(|name| like(name)).count();
    // Another map in the same row, another one in the same column, and no other one in the same cell.
    let in_grid = |name: &(&str, &str)| {
        let same = count(&|other| other == name);
        same == 1 && count(&|other| other.0 == name.0) > 1 && count(&|other| other.1 == name.1) > 1
    };
    let (mut grid, mut loose) = (Grid::default(), Vec::new());
    for map in maps {
        match map.name.rsplit_once(' ').filter(in_grid) {
            Some((row, column)) => {
                let (i, j) = (index(&mut grid.rows, row), index(&mut grid.columns, column));
                grid.maps.push((i, j, map));
            }
            None => loose.push(map),
        }
    }
    (grid, loose)
}

/// The index of a name, which is added if it is missing.
fn index<'a>(names: &mut Vec<&'a str>, name: &'a str) -> usize {
    let found = names.iter().position(|n| *n == name);
    if found.is_none() {
        names.push(name);
    }
    found.unwrap_or(names.len() - 1)
}

/// Draws the grid with column names above and row names at the left. Returns its lower end.
fn in_grid(out: &mut String, grid: &Grid, scale: &Ticks) -> f64 {
    let left = LEFT + 8.0 + grid.rows.iter().map(|name| width(name)).fold(0.0, f64::max).min(120.0);
    let step = ((WIDTH - left + GAP) / grid.columns.len() as f64).min(SIDE + GAP);
    for (j, name) in grid.columns.iter().enumerate() {
        let x = left + step * j as f64 + (step - GAP) / 2.0;
        text(out, (x, 0.5 * LINE), "", Anchor::Middle, &fit(name, step));
    }
    for (i, name) in grid.rows.iter().enumerate() {
        text(out, (left - 8.0, LINE + 4.0 + step * i as f64 + (step - GAP) / 2.0), "", Anchor::End, &fit(name, 120.0));
    }
    for (i, j, map) in &grid.maps {
        one(out, map, scale, [left + step * *j as f64, LINE + 4.0 + step * *i as f64, step - GAP, step - GAP]);
    }
    LINE + 4.0 + step * grid.rows.len() as f64 - GAP + 6.0
}

/// Draws maps in rows below `top`, each below its name. Returns their lower end.
fn in_rows(out: &mut String, maps: &[&Heat], scale: &Ticks, top: f64) -> f64 {
    let columns = maps.len().clamp(1, if maps.len() > 8 { 6 } else { 4 });
    let gap = 2.0 * GAP;
    let step = ((WIDTH - LEFT + gap) / columns as f64).min(SIDE + gap);
    let top = if top > 0.0 { top + 8.0 } else { top };
    for (i, map) in maps.iter().enumerate() {
        let x = LEFT + step * (i % columns) as f64;
        let y = top + (step - gap + LINE + 14.0) * (i / columns) as f64;
        let room = if columns == 1 { WIDTH - LEFT } else { step - 4.0 };
        text(out, (x, y + 0.5 * LINE), "", Anchor::Start, &fit(&map.name, room));
        one(out, map, scale, [x, y + LINE, step - gap, step - gap]);
    }
    top + (step - gap + LINE + 14.0) * maps.len().div_ceil(columns) as f64 - 8.0
}

/// Row, column and value of every cell.
fn cells(map: &Heat) -> impl Iterator<Item = (usize, usize, f64)> {
    let cols = map.cols.max(1);
    map.values.iter().take(map.rows.saturating_mul(map.cols)).enumerate().map(move |(i, v)| (i / cols, i % cols, *v))
}

/// Colour level, from 0 to `LEVELS`.
fn level(value: f64, scale: &Ticks) -> usize {
    (scale.share(value) * LEVELS as f64).round().clamp(0.0, LEVELS as f64) as usize
}

/// Draws a map: one path for each level. Equal neighbours in a row become one rectangle.
fn one(out: &mut String, map: &Heat, scale: &Ticks, [x, y, w, h]: [f64; 4]) {
    let levels: Vec<(usize, usize, usize)> = cells(map)
        .filter_map(|(i, j, v)| Some((i, j, level(drawable(v, AxisScale::Linear)?, scale))))
        .filter(|(_, _, level)| *level > 0)
        .collect();
    let mut paths = vec![String::new(); LEVELS + 1];
    for run in levels.chunk_by(|a, b| a.0 == b.0 && a.1 + 1 == b.1 && a.2 == b.2) {
        let (i, j, level) = run[0];
        let n = run.len();
        paths[level].push_str(&format!("M{j} {i}h{n}v1h-{n}z"));
    }
    if map.rows > 0 && map.cols > 0 {
        let (sx, sy) = (w / map.cols as f64, h / map.rows as f64);
        out.push_str(&format!("<g class=\"heat\" transform=\"matrix({sx:.4} 0 0 {sy:.4} {} {})\">", number(x), number(y)));
        for (level, d) in paths.iter().enumerate().filter(|(_, d)| !d.is_empty()) {
            out.push_str(&format!("<path opacity=\"{}\" d=\"{d}\"/>", opacity(level)));
        }
        out.push_str("</g>\n");
    }
    rect(out, "class=\"tile\"", [x, y, w, h]);
}

fn opacity(level: usize) -> String {
    format!("{:.2}", level as f64 / LEVELS as f64)
}

/// Draws the colour scale with ticks below.
fn legend(out: &mut String, scale: &Ticks, clipped: bool, y: f64) {
    let side = 240.0;
    let x = scale.clone().between((LEFT + WIDTH - side) / 2.0, (LEFT + WIDTH + side) / 2.0);
    let edge = |level: f64| x.start + side * ((level - 0.5) / LEVELS as f64).clamp(0.0, 1.0);
    for level in 1..=LEVELS {
        let (from, to) = (edge(level as f64), edge(level as f64 + 1.0));
        rect(out, &format!("class=\"level\" opacity=\"{}\"", opacity(level)), [from, y, to - from, 12.0]);
    }
    rect(out, "class=\"tile\"", [x.start, y, side, 12.0]);
    // Wide labels: print every second one.
    let stride = if (x.ticks.widest_label() + 8.0) * (x.ticks.major.len() - 1) as f64 > side { 2 } else { 1 };
    let last = x.ticks.major.len() - 1;
    for (i, (value, label)) in x.ticks.major.iter().enumerate() {
        if (last - i).is_multiple_of(stride) {
            let label = if clipped && i == last { format!("≥ {label}") } else { label.clone() };
            text(out, (x.at(*value), y + 24.0), "tick", Anchor::Middle, &label);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::figure::{Axis, Plot};

    fn heat(name: &str, values: Vec<f64>) -> Heat {
        Heat { name: name.into(), rows: 2, cols: values.len() / 2, values }
    }

    fn svg(maps: Vec<Heat>) -> String {
        let axis = |label: &str| Axis { label: label.into(), scale: AxisScale::Linear };
        Figure { title: "t".into(), caption: "c".into(), x: axis("input"), y: axis("output"), plot: Plot::Heat(maps) }.svg()
    }

    #[test]
    fn a_run_of_a_level_is_one_rectangle() {
        let svg = svg(vec![heat("a", vec![0.0, 20.0, 20.0, 10.0, 10.0, f64::NAN])]);
        assert!(svg.contains("<path opacity=\"0.50\" d=\"M0 1h2v1h-2z\"/>"), "{svg}");
        assert_eq!(svg.matches("M1 0h2").count(), 1, "{svg}");
        assert!(!svg.contains("NaN"));
    }

    #[test]
    fn names_of_two_parts_make_a_grid() {
        let maps: Vec<Heat> = ["0 q", "0 v", "1 q", "1 v", "head"].iter().map(|name| heat(name, vec![1.0; 4])).collect();
        let (grid, loose) = arranged(&maps);
        assert_eq!((grid.rows, grid.columns, grid.maps.len(), loose.len()), (vec!["0", "1"], vec!["q", "v"], 4, 1));
        let rows: Vec<Heat> = ["layer 0", "layer 1"].iter().map(|name| heat(name, vec![1.0; 4])).collect();
        assert_eq!(arranged(&rows).1.len(), 2, "one row is no grid");
    }

    #[test]
    fn the_scale_begins_at_the_smallest_value_or_at_zero() {
        let from = |values| colours(&[heat("a", values)]).map(|(scale, _)| (scale.from, scale.major[0].0));
        assert_eq!(from(vec![-3.0, 0.0, 8.0, 140.0]), Some((-3.0, 0.0)));
        assert_eq!(from(vec![1.0, 9.0]), Some((0.0, 0.0)));
        assert_eq!(from(vec![7.5, 9.0]), Some((7.5, 7.5)));
        assert!(from(vec![3.0, 3.0]).is_some_and(|(from, _)| from < 3.0));
    }

    #[test]
    fn an_outlier_does_not_blank_the_rest() {
        let mut values = vec![1.0; 1000];
        values[3] = 500.0;
        let svg = svg(vec![heat("a", values)]);
        assert!(svg.contains(">≥ "), "{svg}");
        assert!(svg.matches("<g class=\"heat\"").count() == 1 && svg.contains("h496"), "{svg}");
    }
}
