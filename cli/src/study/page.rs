//! An HTML page of text, tables and figures: one file, no script, no other resources.

use super::figure::{Figure, STYLE, escape};
use super::verdict::Verdict;

/// A page with at least this many headings begins with a table of contents.
const CONTENTS: usize = 3;

/// An element of a page.
#[derive(Clone, Debug, PartialEq)]
pub enum Block {
    /// A heading.
    Heading(String),
    /// Text; an empty line separates paragraphs.
    Text(String),
    /// A table. A column is right-aligned if all its cells are numbers.
    Table {
        /// Text above the table.
        caption: String,
        /// Names of the columns.
        head: Vec<String>,
        /// Cells of each row.
        rows: Vec<Vec<String>>,
    },
    /// A plot with its title and caption.
    Figure(Figure),
    /// Code, or a command.
    Code(String),
    /// A claim and its verdict.
    Verdict {
        /// The claim.
        claim: String,
        /// Whether the measurements support it.
        verdict: Verdict,
        /// The numbers on which the verdict rests.
        measured: String,
    },
    /// Content that is folded away until the reader opens it.
    Details {
        /// The line that is always shown.
        summary: String,
        /// The folded content.
        blocks: Vec<Block>,
    },
}

impl Block {
    /// A table.
    pub fn table(caption: &str, head: &[impl ToString], rows: Vec<Vec<String>>) -> Block {
        Block::Table { caption: caption.to_string(), head: head.iter().map(ToString::to_string).collect(), rows }
    }
}

/// The page as HTML. The same blocks give the same text.
pub fn html(title: &str, lead: &str, blocks: &[Block]) -> String {
    let title = escape(title);
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<meta name=\"color-scheme\" content=\"light dark\"/>\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"/>\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<header>\n<h1>{title}</h1>\n"
    );
    paragraphs(&mut out, "lead", lead);
    out.push_str("</header>\n");
    let mut writer = Writer { out, headings: 0, figures: 0, tables: 0 };
    writer.contents(blocks);
    blocks.iter().for_each(|block| writer.block(block, 2));
    writer.out + "</main>\n</body>\n</html>\n"
}

struct Writer {
    out: String,
    /// Number of top-level headings written.
    headings: usize,
    /// Number of figures, and of tables with captions, written so far.
    figures: usize,
    tables: usize,
}

impl Writer {
    /// The table of contents.
    fn contents(&mut self, blocks: &[Block]) {
        let headings = || blocks.iter().filter_map(|block| if let Block::Heading(text) = block { Some(text) } else { None });
        if headings().count() < CONTENTS {
            return;
        }
        self.out.push_str("<nav aria-label=\"Contents\">\n<ol>\n");
        for (i, text) in headings().enumerate() {
            self.out.push_str(&format!("<li><a href=\"#s{}\">{}</a></li>\n", i + 1, escape(text)));
        }
        self.out.push_str("</ol>\n</nav>\n");
    }

    /// Writes a block. Headings get the HTML level `level`.
    fn block(&mut self, block: &Block, level: usize) {
        match block {
            Block::Heading(text) if level == 2 => {
                self.headings += 1;
                self.out.push_str(&format!("<h2 id=\"s{}\">{}</h2>\n", self.headings, escape(text)));
            }
            Block::Heading(text) => self.out.push_str(&format!("<h{level}>{}</h{level}>\n", escape(text))),
            Block::Text(text) => paragraphs(&mut self.out, "", text),
            Block::Table { caption, head, rows } => self.table(caption, head, rows),
            Block::Figure(figure) => self.figure(figure),
            Block::Code(code) => self.out.push_str(&format!("<pre tabindex=\"0\"><code>{}</code></pre>\n", escape(code))),
            Block::Verdict { claim, verdict, measured } => self.out.push_str(&format!(
                "<section class=\"verdict {}\">\n<p class=\"claim\"><span class=\"badge\">{verdict}</span> {}</p>\n<p class=\"measured\">{}</p>\n</section>\n",
                verdict.class(),
                prose(claim),
                prose(measured)
            )),
            Block::Details { summary, blocks } => {
                self.out.push_str(&format!("<details>\n<summary>{}</summary>\n", escape(summary)));
                blocks.iter().for_each(|block| self.block(block, (level + 1).min(6)));
                self.out.push_str("</details>\n");
            }
        }
    }

    fn figure(&mut self, figure: &Figure) {
        self.figures += 1;
        self.out.push_str(&format!(
            "<figure class=\"plot\">\n{}<figcaption><b>Figure {}. {}.</b> {}</figcaption>\n</figure>\n",
            figure.svg(),
            self.figures,
            prose(&figure.title),
            prose(&figure.caption)
        ));
    }

    /// A table under its caption.
    fn table(&mut self, caption: &str, head: &[String], rows: &[Vec<String>]) {
        self.out.push_str("<figure class=\"table\">\n");
        let mut name = "Table".to_string();
        if !caption.is_empty() {
            self.tables += 1;
            name = format!("Table {}", self.tables);
            self.out.push_str(&format!("<figcaption><b>{name}.</b> {}</figcaption>\n", prose(caption)));
        }
        table(&mut self.out, &name, head, rows);
        self.out.push_str("</figure>\n");
    }
}

/// Escaped text. A non-breaking space before each per cent sign keeps it on the line of its number.
fn prose(text: &str) -> String {
    escape(text).replace(" %", "\u{a0}%")
}

fn paragraphs(out: &mut String, class: &str, text: &str) {
    let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
    for paragraph in text.split("\n\n").filter(|p| !p.trim().is_empty()) {
        out.push_str(&format!("<p{class}>{}</p>\n", prose(paragraph.trim())));
    }
}

/// A table in a box that scrolls sideways if the table is wide, also with the keyboard.
fn table(out: &mut String, name: &str, head: &[String], rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).chain([head.len()]).max().unwrap_or(0);
    let numeric: Vec<bool> = (0..columns).map(|j| numeric(rows.iter().map(|row| row.get(j).map_or("", String::as_str)))).collect();
    let class = |j: usize| if numeric[j] { " class=\"n\"" } else { "" };
    let cell = |row: &[String], j: usize| row.get(j).map_or(String::new(), |c| escape(c));
    out.push_str(&format!("<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"{name}\">\n<table>\n<thead><tr>"));
    for j in 0..columns {
        out.push_str(&format!("<th scope=\"col\"{}>{}</th>", class(j), cell(head, j)));
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for row in rows {
        out.push_str("<tr>");
        for j in 0..columns {
            out.push_str(&match j == 0 && !numeric[0] {
                true => format!("<th scope=\"row\">{}</th>", cell(row, j)),
                false => format!("<td{}>{}</td>", class(j), cell(row, j)),
            });
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody>\n</table>\n</div>\n");
}

/// Whether each cell is a number, an interval or empty, and at least one has a digit.
fn numeric<'a>(cells: impl Iterator<Item = &'a str>) -> bool {
    let mut digits = false;
    for cell in cells.map(str::trim) {
        let number = cell.chars().all(|c| c.is_ascii_digit() || " .,+-−–±%×()[]/e".contains(c)) && !cell.contains("ee");
        let has_digit = cell.contains(|c: char| c.is_ascii_digit());
        if !number || !(has_digit || ["", "–", "-", "−"].contains(&cell)) {
            return false;
        }
        digits |= has_digit;
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::figure::{Axis, AxisScale, Bar, Plot};

    fn strings(cells: &[&str]) -> Vec<String> {
        cells.iter().map(|c| c.to_string()).collect()
    }

    fn page() -> String {
        let axis = |label: &str| Axis { label: label.into(), scale: AxisScale::Linear };
        let bars = vec![Bar { name: "a & b".into(), value: 2.0, interval: None, mark: None }];
        let figure = Figure { title: "T".into(), caption: "C.".into(), x: axis("x"), y: axis("y"), plot: Plot::Bars(bars) };
        let rows = vec![strings(&["<b>", "1,538", "60.10 (58.00–62.13)", "–"]), strings(&["q", "7", "1.5e-3"])];
        let blocks = [
            Block::Heading("A < B".into()),
            Block::Text("one\n\ntwo <script>alert(1)</script> \u{8}".into()),
            Block::Table { caption: "\"quoted\"".into(), head: strings(&["name", "n", "%", "seen", "more"]), rows },
            Block::Heading("Second".into()),
            Block::Code("lowrank study --rows 'a' && echo <done>".into()),
            Block::Verdict { claim: "x < y".into(), verdict: Verdict::NotSupported, measured: "p > 0.05".into() },
            Block::Heading("Third".into()),
            Block::Details { summary: "more & more".into(), blocks: vec![Block::Heading("inner".into()), Block::Figure(figure)] },
        ];
        html("Title & <title>", "The lead.", &blocks)
    }

    /// Whether all elements are closed in order and each `&` begins an entity, as XML requires.
    fn well_formed(page: &str) -> Result<(), String> {
        let mut open: Vec<String> = Vec::new();
        let mut rest = page.strip_prefix("<!DOCTYPE html>").ok_or("no doctype")?;
        while let Some(start) = rest.find('<') {
            let (text, tag) = rest.split_at(start);
            if text.split('&').skip(1).any(|entity| !entity.split_once(';').is_some_and(|(name, _)| name.len() < 6 && !name.contains(' ')))
            {
                return Err(format!("an ampersand in {text}"));
            }
            let end = tag.find('>').ok_or("an open tag at the end")?;
            let inner = &tag[1..end];
            if inner.contains('<') || inner.matches('"').count() % 2 == 1 {
                return Err(format!("a tag <{inner}>"));
            }
            let name = inner.trim_start_matches('/').split([' ', '/']).next().unwrap_or_default().to_string();
            if inner.starts_with('/') {
                if open.pop().as_ref() != Some(&name) {
                    return Err(format!("</{name}> closes nothing"));
                }
            } else if !inner.ends_with('/') {
                open.push(name);
            }
            rest = &tag[end + 1..];
        }
        if open.is_empty() && rest.trim().is_empty() { Ok(()) } else { Err(format!("not closed: {open:?}")) }
    }

    #[test]
    fn every_element_closes_and_everything_is_escaped() {
        let page = page();
        assert_eq!(well_formed(&page), Ok(()));
        for text in [
            "Title &amp; &lt;title&gt;",
            "&lt;script&gt;alert(1)&lt;/script&gt;",
            "A &lt; B",
            "more &amp; more",
            "&quot;quoted&quot;",
            "&amp;&amp; echo",
        ] {
            assert!(page.contains(text), "{text}");
        }
        assert!(!page.contains('\u{8}'));
        assert_eq!(prose("95 % of <5"), "95\u{a0}% of &lt;5");
        assert!(well_formed("<!DOCTYPE html><p><b></p></b>").is_err() && well_formed("<!DOCTYPE html><p>a & b</p>").is_err());
    }

    #[test]
    fn a_page_needs_no_network_and_no_script() {
        let page = page();
        for part in ["http:", "https:", "<script", "src=", "url(", "@import", "javascript:", " onload"] {
            assert!(!page.contains(part), "{part}");
        }
    }

    #[test]
    fn columns_of_numbers_are_right_aligned() {
        let page = page();
        for cell in [
            "<th scope=\"row\">&lt;b&gt;</th>",
            "<td class=\"n\">1,538</td>",
            "<td class=\"n\">60.10 (58.00–62.13)</td>",
            "<td>–</td>",
            "<td></td>",
        ] {
            assert!(page.contains(cell), "{cell}");
        }
        assert!(page.contains("<th scope=\"col\" class=\"n\">n</th>") && page.contains("<th scope=\"col\">name</th>"));
        assert!(!numeric(["1", "one"].into_iter()) && !numeric(["–"].into_iter()) && numeric(["1", "–", "12 %"].into_iter()));
    }

    #[test]
    fn headings_are_linked_and_figures_numbered() {
        let page = page();
        assert!(page.contains("<a href=\"#s2\">Second</a>") && page.contains("<h2 id=\"s2\">Second</h2>"));
        assert!(page.contains("<h3>inner</h3>") && !page.contains("\"#s4\""));
        assert!(page.contains("<b>Figure 1. T.</b> C.") && page.contains("<b>Table 1.</b> &quot;quoted&quot;"));
        assert!(!html("t", "l", &[Block::Heading("a".into())]).contains("<nav"));
    }

    #[test]
    fn a_verdict_says_its_words() {
        let names = [Verdict::Supported, Verdict::NotSupported, Verdict::Undecided, Verdict::NotMeasured, Verdict::NotJudged]
            .map(|v| v.to_string());
        assert_eq!(names, ["supported", "not supported", "undecided", "not measured", "not judged"]);
        assert!(page().contains("<span class=\"badge\">not supported</span> x &lt; y"));
    }
}
