//! Figures as SVG, inline or in files: lines, labelled points, bars, heat maps.
//!
//! ```text
//! Figure ──► lines | points | bars | heat ──► frame, scale, legend ──► draw ──► <svg>
//! ```
//!
//! Colours and text sizes are in `report.css`. Values that a scale cannot show are left out: what is not finite, and on a log axis what is not above 0.

mod bars;
mod draw;
mod frame;
mod heat;
mod legend;
mod lines;
mod points;
mod scale;

pub use scale::thousands;

pub(super) use draw::escape;

/// The style of figures, and of a page around them.
pub(super) const STYLE: &str = include_str!("../report.css");

/// A point of a plot.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Position on the x axis, in its unit.
    pub x: f64,
    /// Position on the y axis, in its unit.
    pub y: f64,
    /// 95 % interval of `y`: lower end, upper end.
    pub interval: Option<(f64, f64)>,
}

/// A line.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Name in the legend.
    pub name: String,
    /// Its points in the order of drawing. Neighbours less than 1/100 of the x axis apart are drawn as their mean.
    pub points: Vec<Point>,
}

/// How an axis maps values to positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Equal differences are equally far apart.
    Linear,
    /// Equal ratios are equally far apart; base 10.
    Log,
}

/// An axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// What it shows, with the unit.
    pub label: String,
    /// How it maps values to positions.
    pub scale: Scale,
}

/// A bar: a value with a name.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// Name, left of the bar.
    pub name: String,
    /// Length, in the unit of the x axis.
    pub value: f64,
    /// 95 % interval of `value`: lower end, upper end.
    pub interval: Option<(f64, f64)>,
    /// A reference, such as what a paper states, drawn as a tick.
    pub mark: Option<f64>,
}

/// A matrix as a map of colours.
#[derive(Clone, Debug, PartialEq)]
pub struct Heat {
    /// Name. Where the names are `row column`, split at the last space, the maps stand in a grid of these.
    pub name: String,
    /// Rows, at most about 48.
    pub rows: usize,
    /// Columns, at most about 48.
    pub cols: usize,
    /// `[rows, cols]`, row by row.
    pub values: Vec<f64>,
}

/// What a figure shows.
#[derive(Clone, Debug, PartialEq)]
pub enum Plot {
    /// Lines over a common x axis.
    Lines(Vec<Series>),
    /// Points, each with its name beside it.
    Points(Vec<(String, Point)>),
    /// Horizontal bars from 0. Values that are all within a factor of 2 are drawn as dots on an axis without 0, where their intervals can be read.
    Bars(Vec<Bar>),
    /// Maps of one colour scale.
    Heat(Vec<Heat>),
}

/// A plot with what it needs to be read.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// Title, without a full stop.
    pub title: String,
    /// What is to be known of it, in sentences.
    pub caption: String,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// What it shows.
    pub plot: Plot,
}

impl Figure {
    /// The figure as an `<svg>` element for a page with the style of `report.css`.
    pub fn svg(&self) -> String {
        self.styled("")
    }

    /// The figure as the text of an SVG file, for browsers.
    pub fn file(&self) -> String {
        let svg = self.styled(&format!("<style>\n{STYLE}</style>\n"));
        svg.replacen("<svg ", "<svg xmlns=\"http://www.w3.org/2000/svg\" ", 1)
    }

    fn styled(&self, style: &str) -> String {
        let mut body = String::new();
        let drawn = match &self.plot {
            Plot::Lines(series) => lines::draw(&mut body, self, series),
            Plot::Points(points) => points::draw(&mut body, self, points),
            Plot::Bars(bars) => bars::draw(&mut body, self, bars),
            Plot::Heat(maps) => heat::draw(&mut body, self, maps),
        };
        let height = drawn.unwrap_or_else(|| {
            body.clear();
            frame::empty(&mut body, self)
        });
        draw::svg(&self.title, &self.description(), height, &format!("{style}{body}"))
    }

    /// What a reader who does not see the figure is told.
    fn description(&self) -> String {
        let (kind, names): (_, Vec<&str>) = match &self.plot {
            Plot::Lines(series) => ("Lines", series.iter().map(|s| s.name.as_str()).collect()),
            Plot::Points(points) => ("Points", points.iter().map(|(name, _)| name.as_str()).collect()),
            Plot::Bars(bars) => ("Bars", bars.iter().map(|b| b.name.as_str()).collect()),
            Plot::Heat(maps) => ("Heat maps", maps.iter().map(|m| m.name.as_str()).collect()),
        };
        format!("{kind}: {} over {}, of {}. {}", self.y.label, self.x.label, names.join(", "), self.caption)
    }
}

#[cfg(test)]
mod tests;
