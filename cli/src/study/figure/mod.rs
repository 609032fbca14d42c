//! Figures as SVG, inline or in files: lines, labelled points, bars, heat maps.
//!
//! ```text
//! Figure ──► lines | points | bars | heat ──► frame, scale, legend ──► draw ──► <svg>
//! ```
//!
//! Colours and text sizes are in `report.css`. Values that a scale cannot show are left out: values that are not finite, and on a log axis values
//! that are not positive.

mod bars;
mod draw;
mod frame;
mod heat;
mod legend;
mod lines;
mod plot;
mod points;
mod scale;

pub(super) use draw::escape;
pub use plot::{Axis, AxisScale, Bar, Figure, Heat, Plot, Point, Series};

/// CSS of the figures, and of a page around them.
pub(super) const STYLE: &str = include_str!("../report.css");

impl Figure {
    /// The figure as an `<svg>` element, for a page that includes `report.css`.
    pub fn svg(&self) -> String {
        self.styled("")
    }

    /// The figure as an SVG file with its own style.
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

    /// Description for readers who do not see the figure.
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
