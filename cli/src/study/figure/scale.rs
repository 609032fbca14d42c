//! Maps values to positions, and chooses the ticks of an axis.

use super::draw::widest;
use super::plot::{AxisScale, Point};
use lowrank::text::thousands;

/// Larger values are not drawn, smaller ones are drawn as 0. So everything computed from a value stays finite.
const LARGEST: f64 = 1e150;
const SMALLEST: f64 = 1e-150;
/// A log axis shorter than this many decades also has ticks at 2 and 5.
const SHORT: f64 = 1.4;

/// The value, if the scale can show it.
pub(super) fn drawable(value: f64, scale: AxisScale) -> Option<f64> {
    let value = if value.abs() < SMALLEST { 0.0 } else { value };
    (value.abs() < LARGEST && (scale == AxisScale::Linear || value > 0.0)).then_some(value)
}

/// The interval with its ends in order, if the scale can show both.
pub(super) fn interval(ends: Option<(f64, f64)>, scale: AxisScale) -> Option<(f64, f64)> {
    let (a, b) = ends?;
    let (a, b) = (drawable(a, scale)?, drawable(b, scale)?);
    Some((a.min(b), a.max(b)))
}

/// The point as the scales of x and y can show it; `None` if they cannot show it.
pub(super) fn shown(p: &Point, (x, y): (AxisScale, AxisScale)) -> Option<Point> {
    Some(Point { x: drawable(p.x, x)?, y: drawable(p.y, y)?, interval: interval(p.interval, y) })
}

/// Smallest and largest value.
pub(super) fn extent(values: impl IntoIterator<Item = f64>) -> Option<(f64, f64)> {
    values.into_iter().fold(None, |range, v| Some(range.map_or((v, v), |(low, high): (f64, f64)| (low.min(v), high.max(v)))))
}

/// The range of an axis, with its ticks.
#[derive(Clone, Debug)]
pub(super) struct Ticks {
    pub scale: AxisScale,
    /// The ends.
    pub from: f64,
    pub to: f64,
    /// Labelled ticks: value and label.
    pub major: Vec<(f64, String)>,
    /// Ticks without labels.
    pub minor: Vec<f64>,
}

impl Ticks {
    /// About `most` steps, at least 2, that cover `values`, which must be drawable. `None` if there are none.
    pub fn of(values: &[f64], scale: AxisScale, most: usize) -> Option<Ticks> {
        let (low, high) = extent(values.iter().copied())?;
        Some(match scale {
            AxisScale::Linear => linear(low, high, most),
            AxisScale::Log if powers_of_two(values) && low < high && (high / low).log2() < most as f64 + 0.5 => binary(low, high),
            AxisScale::Log => log(low, high, most),
        })
    }

    /// Position of a value: 0 at `from`, 1 at `to`.
    pub fn share(&self, value: f64) -> f64 {
        let t = |v: f64| if self.scale == AxisScale::Log { v.log10() } else { v };
        (t(value) - t(self.from)) / (t(self.to) - t(self.from))
    }

    /// Width of the widest label.
    pub fn widest_label(&self) -> f64 {
        widest(self.major.iter().map(|(_, label)| label))
    }

    /// Puts the ends of the axis at these coordinates.
    pub fn between(self, start: f64, end: f64) -> AxisMap {
        AxisMap { ticks: self, start, end }
    }
}

/// An axis with the coordinates of its ends.
#[derive(Clone, Debug)]
pub(super) struct AxisMap {
    pub ticks: Ticks,
    pub start: f64,
    pub end: f64,
}

impl AxisMap {
    /// Coordinate of a value.
    pub fn at(&self, value: f64) -> f64 {
        self.start + self.ticks.share(value) * (self.end - self.start)
    }
}

/// 1, 2 or 5 times a power of 10, at least `step`.
fn round_up(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= step * (1.0 - 1e-9)).unwrap_or(10.0);
    factor * power
}

fn linear(low: f64, high: f64, most: usize) -> Ticks {
    // Values that differ only by rounding count as equal.
    let flat = high - low <= 1e-9 * low.abs().max(high.abs());
    let pad = match low.abs().max(high.abs()) {
        _ if !flat => 0.0,
        0.0 => 1.0,
        size => 0.1 * size,
    };
    let (low, high) = (low - pad, high + pad);
    let step = round_up((high - low) / most as f64);
    let (first, last) = ((low / step + 1e-6).floor(), (high / step - 1e-6).ceil());
    let values = (0..=(last - first) as usize).map(|i| (first + i as f64) * step);
    let size = (first * step).abs().max((last * step).abs());
    let major = values.map(|v| (v, linear_label(v, step, size))).collect();
    Ticks { scale: AxisScale::Linear, from: first * step, to: last * step, major, minor: Vec::new() }
}

/// Number of decimals that distinguishes multiples of `step`.
pub(super) fn decimals(step: f64) -> usize {
    (-(step.log10() + 1e-9).floor()).clamp(0.0, 9.0) as usize
}

fn linear_label(value: f64, step: f64, size: f64) -> String {
    if value.abs() < 1e-6 * step {
        return "0".to_string();
    }
    match size {
        size if !(1e-3..1e9).contains(&size) => {
            let exponent = (step.log10() + 1e-9).floor();
            format!("{}×{}", grouped(value / 10f64.powf(exponent), 0), power_of_ten(exponent as i32))
        }
        size if size >= 1e6 => grouped(value / 1e6, decimals(step / 1e6)) + "M",
        _ => grouped(value, decimals(step)),
    }
}

/// The number with `decimals` decimals, a minus sign (U+2212), and commas between thousands.
pub(super) fn grouped(value: f64, decimals: usize) -> String {
    let text = format!("{:.decimals$}", value.abs());
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let whole = whole.parse().map_or_else(|_| whole.to_string(), thousands);
    let minus = if value < 0.0 && text.contains(|c: char| ('1'..='9').contains(&c)) { "−" } else { "" };
    format!("{minus}{whole}{rest}")
}

fn power_of_ten(exponent: i32) -> String {
    let digit = |c: char| c.to_digit(10).and_then(|digit| "⁰¹²³⁴⁵⁶⁷⁸⁹".chars().nth(digit as usize)).unwrap_or('⁻');
    format!("10{}", exponent.to_string().chars().map(digit).collect::<String>())
}

/// Label of `factor` · 10^`exponent` on an axis from `from` to `to`.
fn log_label(factor: f64, exponent: i32, from: f64, to: f64) -> String {
    let value = factor * 10f64.powi(exponent);
    let short = |by: f64, unit| format!("{}{unit}", value / by);
    match value {
        _ if from < 0.99e-3 || to > 1.01e9 => {
            let factor = if factor == 1.0 { String::new() } else { format!("{factor}×") };
            factor + &power_of_ten(exponent)
        }
        v if v < 1.0 => format!("{v:.*}", decimals(v)),
        // On a long axis, k and M are easier to read than many zeros.
        v if to > 1e5 && v >= 0.99e6 => short(1e6, "M"),
        v if to > 1e5 && v >= 0.99e3 => short(1e3, "k"),
        v => grouped(v, 0),
    }
}

fn log(low: f64, high: f64, most: usize) -> Ticks {
    let (low, high) = if high <= low * (1.0 + 1e-9) { (low / 1.5, high * 1.5) } else { (low, high) };
    let factors: &[f64] = if (high / low).log10() < SHORT { &[1.0, 2.0, 5.0] } else { &[1.0] };
    let exponents = low.log10().floor() as i32 - 1..=high.log10().ceil() as i32 + 1;
    let round: Vec<(f64, i32)> = exponents.clone().flat_map(|e| factors.iter().map(move |&factor| (factor, e))).collect();
    let value = |(factor, e): (f64, i32)| factor * 10f64.powi(e);
    let first = round.iter().rposition(|&r| value(r) <= low * (1.0 + 1e-9)).unwrap_or(0);
    let last = round.iter().position(|&r| value(r) >= high * (1.0 - 1e-9)).unwrap_or(round.len() - 1).max(first + 1);
    let (from, to) = (value(round[first]), value(round[last]));
    let stride = (last - first).div_ceil(most);
    let label = |&(factor, e): &(f64, i32)| (value((factor, e)), log_label(factor, e, from, to));
    let major = round[first..=last].iter().step_by(stride).map(label).collect();
    // Ticks at 2 to 9 show that the axis is logarithmic. If decades are skipped there is no room for them.
    let between = exponents.flat_map(|e| (2..10).map(move |factor| f64::from(factor) * 10f64.powi(e)));
    let minor = between.filter(|v| stride == 1 && last - first < 8 && (from..to).contains(v)).collect();
    Ticks { scale: AxisScale::Log, from, to, major, minor }
}

/// Whether all values are powers of 2, such as ranks. Then the ticks are powers of 2.
fn powers_of_two(values: &[f64]) -> bool {
    values.iter().all(|v| (v.log2() - v.log2().round()).abs() < 1e-9 && (1.0..1e6).contains(v))
}

fn binary(low: f64, high: f64) -> Ticks {
    let exponents = low.log2().round() as i32..=high.log2().round() as i32;
    let major = exponents.map(|e| 2f64.powi(e)).map(|v| (v, grouped(v, 0))).collect();
    let pad = (high / low).powf(0.04);
    Ticks { scale: AxisScale::Log, from: low / pad, to: high * pad, major, minor: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(ticks: &Ticks) -> Vec<&str> {
        ticks.major.iter().map(|(_, label)| label.as_str()).collect()
    }

    #[test]
    fn ticks_are_at_round_numbers_around_the_values() {
        for (values, expected) in [
            (vec![59.8, 93.3], vec!["50", "60", "70", "80", "90", "100"]),
            (vec![0.0, 4999.0], vec!["0", "1,000", "2,000", "3,000", "4,000", "5,000"]),
            (vec![-0.31, 0.28], vec!["−0.4", "−0.2", "0", "0.2", "0.4"]),
            (vec![1e6, 6.6e7], vec!["0", "20M", "40M", "60M", "80M"]),
            (vec![2e-5, 1e-4], vec!["2×10⁻⁵", "4×10⁻⁵", "6×10⁻⁵", "8×10⁻⁵", "10×10⁻⁵"]),
        ] {
            let ticks = Ticks::of(&values, AxisScale::Linear, 5).unwrap();
            assert_eq!(labels(&ticks), expected);
            assert!(ticks.from <= values[0] && ticks.to >= values[1] * (1.0 - 1e-9));
        }
    }

    #[test]
    fn the_same_value_everywhere_still_has_an_axis() {
        for (value, scale) in [
            (86.4, AxisScale::Linear),
            (0.0, AxisScale::Linear),
            (-3.0, AxisScale::Linear),
            (1e149, AxisScale::Linear),
            (5.0, AxisScale::Log),
        ] {
            let ticks = Ticks::of(&[value; 3], scale, 5).unwrap();
            let share = ticks.share(value);
            assert!((0.1..=0.9).contains(&share), "{value} at {share}");
            assert!(ticks.major.len() >= 2, "{ticks:?}");
        }
    }

    #[test]
    fn a_log_axis_places_decades_evenly() {
        let map = Ticks::of(&[1538.0, 66_955_010.0], AxisScale::Log, 6).unwrap().between(100.0, 600.0);
        assert_eq!(labels(&map.ticks), ["1k", "10k", "100k", "1M", "10M", "100M"]);
        for (i, (value, _)) in map.ticks.major.iter().enumerate() {
            assert!((map.at(*value) - (100.0 + 100.0 * i as f64)).abs() < 1e-9);
        }
        assert_eq!(map.ticks.minor.len(), 5 * 8);
        let long = Ticks::of(&[1e-12, 1.0], AxisScale::Log, 5).unwrap();
        assert_eq!(labels(&long), ["10⁻¹²", "10⁻⁹", "10⁻⁶", "10⁻³", "10⁰"]);
    }

    #[test]
    fn a_short_log_axis_has_ticks_at_2_and_5_and_ranks_have_their_own() {
        assert_eq!(labels(&Ticks::of(&[3.0, 15.0], AxisScale::Log, 6).unwrap()), ["2", "5", "10", "20"]);
        assert_eq!(labels(&Ticks::of(&[1.0, 2.0, 4.0, 16.0], AxisScale::Log, 6).unwrap()), ["1", "2", "4", "8", "16"]);
        assert_eq!(labels(&Ticks::of(&[0.012, 0.2], AxisScale::Log, 6).unwrap()), ["0.01", "0.02", "0.05", "0.1", "0.2"]);
    }

    #[test]
    fn what_a_scale_cannot_show_is_left_out() {
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300] {
            assert_eq!(drawable(value, AxisScale::Linear), None);
        }
        assert_eq!((drawable(0.0, AxisScale::Log), drawable(-1.0, AxisScale::Log)), (None, None));
        assert_eq!((drawable(-1.0, AxisScale::Linear), drawable(2.0, AxisScale::Log)), (Some(-1.0), Some(2.0)));
        assert_eq!(interval(Some((2.0, 1.0)), AxisScale::Linear), Some((1.0, 2.0)));
        assert_eq!(interval(Some((0.0, 1.0)), AxisScale::Log), None);
    }
}
