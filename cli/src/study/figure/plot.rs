//! What a figure shows: axes, lines, points, bars and maps, before anything is drawn.

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
    /// Points in drawing order. Neighbours closer than 1/100 of the x axis are drawn as their mean.
    pub points: Vec<Point>,
}

/// Most points of a smoothed line.
const SMOOTHED: usize = 60;

impl Series {
    /// A value for each step, from 1, as means over neighbouring steps.
    pub fn smoothed(name: &str, values: &[f64]) -> Series {
        let width = values.len().div_ceil(SMOOTHED).max(1);
        let points = values.chunks(width).enumerate().map(|(i, chunk)| Point {
            x: (i * width) as f64 + (chunk.len() as f64 + 1.0) / 2.0,
            y: chunk.iter().sum::<f64>() / chunk.len() as f64,
            interval: None,
        });
        Series { name: name.to_string(), points: points.collect() }
    }
}

/// How an axis maps values to positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AxisScale {
    /// Equal differences are equally far apart.
    Linear,
    /// Equal ratios are equally far apart; base 10.
    Log,
}

/// An axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// Name of the quantity, with the unit.
    pub label: String,
    /// How it maps values to positions.
    pub scale: AxisScale,
}

/// A value with a name.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// Name, printed left of the bar.
    pub name: String,
    /// Length, in the unit of the x axis.
    pub value: f64,
    /// 95 % interval of `value`: lower end, upper end.
    pub interval: Option<(f64, f64)>,
    /// A reference value, such as the one a paper states; drawn as a tick.
    pub mark: Option<f64>,
}

/// A matrix as a colour map.
#[derive(Clone, Debug, PartialEq)]
pub struct Heat {
    /// Name. If the names have the form `row column`, split at the last space, the maps are arranged in a grid.
    pub name: String,
    /// Rows, at most about 48.
    pub rows: usize,
    /// Columns, at most about 48.
    pub cols: usize,
    /// `[rows, cols]`, row by row.
    pub values: Vec<f64>,
}

/// Content of a figure.
#[derive(Clone, Debug, PartialEq)]
pub enum Plot {
    /// Lines with a common x axis.
    Lines(Vec<Series>),
    /// Points with names.
    Points(Vec<(String, Point)>),
    /// Horizontal bars from 0. If all values are within a factor of 2, they are drawn as dots on an axis without 0, so that their intervals can be read.
    Bars(Vec<Bar>),
    /// Colour maps with one common scale.
    Heat(Vec<Heat>),
}

/// A plot with title, caption and axes.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// Title, without a full stop.
    pub title: String,
    /// Explanation in sentences.
    pub caption: String,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// The content.
    pub plot: Plot,
}

impl Figure {
    /// A figure with two linear axes, whose labels are `[x, y]`.
    pub fn linear(title: &str, caption: &str, labels: [&str; 2], plot: Plot) -> Figure {
        let [x, y] = labels.map(|label| Axis { label: label.to_string(), scale: AxisScale::Linear });
        Figure { title: title.to_string(), caption: caption.to_string(), x, y, plot }
    }

    /// The figure with a logarithmic x axis.
    pub fn log_x(mut self) -> Figure {
        self.x.scale = AxisScale::Log;
        self
    }

    /// The figure with a logarithmic y axis.
    pub fn log_y(mut self) -> Figure {
        self.y.scale = AxisScale::Log;
        self
    }
}
