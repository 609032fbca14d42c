//! SVG: numbers, text and its width, markers.

use std::fmt::Write;

/// Width of every figure, in the unit of all coordinates.
pub(super) const WIDTH: f64 = 520.0;
/// Font size in a figure on a wide screen, as in `report.css`.
const FONT: f64 = 12.0;
/// Largest font size (on a phone). The layout leaves room for this one.
pub(super) const LARGE: f64 = 16.5;
/// Line height.
pub(super) const LINE: f64 = 22.0;

/// The `<svg>` element with title and description.
pub(super) fn svg(title: &str, description: &str, height: f64, body: &str) -> String {
    format!(
        "<svg role=\"img\" viewBox=\"0 0 {} {}\" width=\"100%\" font-size=\"{FONT}\"><title>{}</title><desc>{}</desc>\n{body}</svg>\n",
        number(WIDTH),
        number(height),
        escape(title),
        escape(description)
    )
}

/// Escapes text for an element or an attribute. Characters that XML forbids become spaces.
pub(in crate::study) fn escape(text: &str) -> String {
    let forbidden = |c: char| (c.is_control() && !matches!(c, '\n' | '\t')) || matches!(c, '\u{fffe}' | '\u{ffff}');
    // The ampersand is the first, because the other entities contain one.
    let entities = [('&', "&amp;"), ('<', "&lt;"), ('>', "&gt;"), ('"', "&quot;"), ('\'', "&#39;")];
    entities.iter().fold(text.replace(forbidden, " "), |text, (c, entity)| text.replace(*c, entity))
}

/// A coordinate, rounded to a tenth.
pub(super) fn number(x: f64) -> String {
    let text = format!("{x:.1}");
    let text = text.strip_suffix(".0").unwrap_or(&text);
    if text == "-0" { "0".to_string() } else { text.to_string() }
}

/// Which part of a text is at its position.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// Text whose vertical middle is at `y`, for any font size.
pub(super) fn text(out: &mut String, (x, y): (f64, f64), class: &str, anchor: Anchor, content: &str) {
    shifted(out, (x, y), 0.35, class, anchor, content);
}

/// Text whose base line is `dy` font sizes below `y`.
pub(super) fn shifted(out: &mut String, (x, y): (f64, f64), dy: f64, class: &str, anchor: Anchor, content: &str) {
    let anchor = match anchor {
        Anchor::Start => "",
        Anchor::Middle => " text-anchor=\"middle\"",
        Anchor::End => " text-anchor=\"end\"",
    };
    let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
    let _ = writeln!(out, "<text x=\"{}\" y=\"{}\" dy=\"{dy}em\"{class}{anchor}>{}</text>", number(x), number(y), escape(content));
}

/// A straight line.
pub(super) fn line(out: &mut String, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
    let _ = writeln!(out, "<path class=\"{class}\" d=\"M{} {}L{} {}\"/>", number(x1), number(y1), number(x2), number(y2));
}

/// A rectangle: left, top, width, height.
pub(super) fn rect(out: &mut String, attributes: &str, [x, y, w, h]: [f64; 4]) {
    let [x, y, w, h] = [x, y, w, h].map(number);
    let _ = writeln!(out, "<rect {attributes} x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}\"/>");
}

/// Marker shapes around a point as path data; a circle stands before them.
const SHAPES: [&str; 4] = ["m-3.5-3.5h7v7h-7z", "m0-4.8l4.6 8.2h-9.2z", "m0-5l5 5l-5 5l-5-5z", "m0 4.8l4.6-8.2h-9.2z"];

/// The marker of series `i`, with a radius of about 4. `told` is shown when the pointer rests on it.
pub(super) fn marker(out: &mut String, i: usize, (x, y): (f64, f64), told: &str) {
    let title = if told.is_empty() { String::new() } else { format!("<title>{}</title>", escape(told)) };
    let (x, y) = (number(x), number(y));
    let (element, shape) = match (i + i / COLOURS) % (SHAPES.len() + 1) {
        0 => ("circle", format!("cx=\"{x}\" cy=\"{y}\" r=\"3.8\"")),
        k => ("path", format!("d=\"M{x} {y}{}\"", SHAPES[k - 1])),
    };
    let _ = writeln!(out, "<{element} class=\"mark c{}\" {shape}>{title}</{element}>", i % COLOURS);
}

/// Number of series colours in `report.css`.
pub(super) const COLOURS: usize = 7;

/// Approximate width of a text at the largest font size, in DejaVu Sans, the widest font in common use.
pub(super) fn width(text: &str) -> f64 {
    let em = |c: char| match c {
        'i' | 'j' | 'l' | '.' | ',' | ':' | ';' | '\'' | '|' | '!' | ' ' => 0.33,
        'f' | 't' | 'r' | '(' | ')' | '-' | '/' => 0.41,
        'm' | 'w' | 'M' | 'W' | '%' | '@' | '—' | '…' => 0.98,
        '+' | '=' | '<' | '>' | '±' | '×' | '−' | '≥' => 0.84,
        c if c.is_uppercase() => 0.72,
        c if c as u32 > 0x2e80 => 1.05,
        _ => 0.635,
    };
    LARGE * text.chars().map(em).sum::<f64>()
}

/// Width of the widest text; 0 if there is none.
pub(super) fn widest<'a>(texts: impl IntoIterator<Item = &'a String>) -> f64 {
    texts.into_iter().map(|text| width(text)).fold(0.0, f64::max)
}

/// The text, shortened to fit into `room`.
pub(super) fn fit(text: &str, room: f64) -> String {
    if width(text) <= room {
        return text.to_string();
    }
    let mut shorter = text.char_indices().rev().map(|(end, _)| format!("{}…", text[..end].trim_end()));
    shorter.find(|short| width(short) <= room).unwrap_or_default()
}

/// The text in one or two lines of width `room`, broken at the space that makes the longer line as short as possible.
pub(super) fn wrap(text: &str, room: f64) -> Vec<String> {
    if width(text) <= room {
        return vec![text.to_string()];
    }
    let broken = text.match_indices(' ').map(|(at, _)| (&text[..at], &text[at + 1..]));
    let longer = |(a, b): &(&str, &str)| width(a).max(width(b));
    match broken.min_by(|a, b| longer(a).total_cmp(&longer(b))) {
        Some((first, second)) => vec![fit(first, room), fit(second, room)],
        None => vec![fit(text, room)],
    }
}
