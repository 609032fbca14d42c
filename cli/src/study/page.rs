//! An HTML page of text, tables and figures: one file, no script, no other resources.

use super::figure::{Figure, STYLE, escape};
use super::verdict::Verdict;

/// A page with at least this many headings begins with a table of contents.
const CONTENTS: usize = 3;

/// Characters shown of a text, and of its beginning.
const EXCERPT: usize = 600;
const BEGINNING: usize = 70;

/// A page, written from top to bottom.
#[derive(Default)]
pub struct Page {
    /// The HTML below the table of contents.
    body: String,
    /// The headings, escaped.
    headings: Vec<String>,
    /// Number of figures and of tables written so far.
    figures: usize,
    tables: usize,
}

impl Page {
    /// A heading, which the table of contents links to.
    pub fn heading(&mut self, text: &str) {
        let text = escape(text);
        self.body.push_str(&format!("<h2 id=\"s{}\">{text}</h2>\n", self.headings.len() + 1));
        self.headings.push(text);
    }

    /// Text; an empty line separates paragraphs.
    pub fn text(&mut self, text: &str) {
        self.body.push_str(&paragraphs("<p>", text));
    }

    /// Code, or a command.
    pub fn code(&mut self, code: &str) {
        self.body.push_str(&format!("<pre tabindex=\"0\"><code>{}</code></pre>\n", escape(code)));
    }

    /// A claim, whether the measurements support it, and the numbers on which the verdict rests.
    pub fn verdict(&mut self, claim: &str, verdict: Verdict, measured: &str) {
        self.body.push_str(&format!(
            "<section class=\"verdict {}\">\n<p class=\"claim\"><span class=\"badge\">{verdict}</span> {}</p>\n<p class=\"measured\">{}</p>\n</section>\n",
            verdict.class(),
            prose(claim),
            prose(measured)
        ));
    }

    /// Texts that are folded away until the reader opens them. `summary` is always shown.
    pub fn details(&mut self, summary: &str, texts: [&str; 2]) {
        self.body.push_str(&format!("<details>\n<summary>{}</summary>\n", escape(summary)));
        texts.into_iter().for_each(|text| self.text(text));
        self.body.push_str("</details>\n");
    }

    /// The beginning of one of the user's texts, folded away, with a line below it. `label` and the first words are always shown.
    pub fn excerpt(&mut self, label: &str, text: &str, below: &str) {
        let begin = |most: usize| text.chars().take(most).collect::<String>();
        let more = if text.chars().count() > EXCERPT { " …" } else { "" };
        self.details(&format!("{label} – {} …", begin(BEGINNING)), [&(begin(EXCERPT) + more), below]);
    }

    /// A plot with its title and caption.
    pub fn figure(&mut self, figure: &Figure) {
        self.figures += 1;
        self.body.push_str(&format!(
            "<figure class=\"plot\">\n{}<figcaption><b>Figure {}. {}.</b> {}</figcaption>\n</figure>\n",
            figure.svg(),
            self.figures,
            prose(&figure.title),
            prose(&figure.caption)
        ));
    }

    /// A table under its caption, in a box that scrolls sideways if the table is wide, also with the keyboard. A column is right-aligned if all its
    /// cells are numbers. Each row has as many cells as `head`.
    pub fn table<H: AsRef<str>>(&mut self, caption: &str, head: &[H], rows: &[Vec<String>]) {
        self.tables += 1;
        let numeric: Vec<bool> = (0..head.len()).map(|j| numeric(rows.iter().map(|row| row[j].as_str()))).collect();
        let class = |j: usize| if numeric[j] { " class=\"n\"" } else { "" };
        let name = |(j, name): (usize, &H)| format!("<th scope=\"col\"{}>{}</th>", class(j), escape(name.as_ref()));
        let cell = |(j, cell): (usize, &String)| match j == 0 && !numeric[0] {
            true => format!("<th scope=\"row\">{}</th>", escape(cell)),
            false => format!("<td{}>{}</td>", class(j), escape(cell)),
        };
        let row = |row: &Vec<String>| format!("<tr>{}</tr>\n", row.iter().enumerate().map(cell).collect::<String>());
        self.body.push_str(&format!(
            "<figure class=\"table\">\n<figcaption><b>Table {n}.</b> {}</figcaption>\n\
             <div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"Table {n}\">\n<table>\n\
             <thead><tr>{}</tr></thead>\n<tbody>\n{}</tbody>\n</table>\n</div>\n</figure>\n",
            prose(caption),
            head.iter().enumerate().map(name).collect::<String>(),
            rows.iter().map(row).collect::<String>(),
            n = self.tables
        ));
    }

    /// The page as HTML, with a title and a lead at its top.
    pub fn html(&self, title: &str, lead: &str) -> String {
        let (title, lead) = (escape(title), paragraphs("<p class=\"lead\">", lead));
        let link = |(i, text): (usize, &String)| format!("<li><a href=\"#s{}\">{text}</a></li>\n", i + 1);
        let links: String = self.headings.iter().enumerate().map(link).collect();
        let contents = match self.headings.len() {
            ..CONTENTS => String::new(),
            _ => format!("<nav aria-label=\"Contents\">\n<ol>\n{links}</ol>\n</nav>\n"),
        };
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<meta name=\"color-scheme\" content=\"light dark\"/>\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"/>\n\
             <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<header>\n<h1>{title}</h1>\n{lead}</header>\n\
             {contents}{}</main>\n</body>\n</html>\n",
            self.body
        )
    }
}

/// Escaped text. A non-breaking space before each per cent sign keeps it on the line of its number.
fn prose(text: &str) -> String {
    escape(text).replace(" %", "\u{a0}%")
}

/// The paragraphs of a text, each after the tag `open`.
fn paragraphs(open: &str, text: &str) -> String {
    text.split("\n\n").map(str::trim).filter(|p| !p.is_empty()).map(|p| format!("{open}{}</p>\n", prose(p))).collect()
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
    use crate::study::figure::{Bar, Plot};

    fn strings(cells: &[&str]) -> Vec<String> {
        cells.iter().map(|c| c.to_string()).collect()
    }

    fn page() -> String {
        let bars = vec![Bar { name: "a & b".into(), value: 2.0, interval: None, mark: None }];
        let rows = [strings(&["<b>", "1,538", "60.10 (58.00–62.13)", "–", ""]), strings(&["q", "7", "1.5e-3", "", ""])];
        let mut page = Page::default();
        page.heading("A < B");
        page.text("one\n\ntwo <script>alert(1)</script> \u{8}");
        page.table("\"quoted\"", &["name", "n", "%", "seen", "more"], &rows);
        page.heading("Second");
        page.code("lowrank study --rows 'a' && echo <done>");
        page.verdict("x < y", Verdict::NotSupported, "p > 0.05");
        page.heading("Third");
        page.details("more & more", ["inner", "text"]);
        page.figure(&Figure::linear("T", "C.", ["x", "y"], Plot::Bars(bars)));
        page.html("Title & <title>", "The lead.")
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
        assert!(page.contains("<p>inner</p>") && !page.contains("\"#s4\""));
        assert!(page.contains("<b>Figure 1. T.</b> C.") && page.contains("<b>Table 1.</b> &quot;quoted&quot;"));
        let mut short = Page::default();
        short.heading("a");
        assert!(!short.html("t", "l").contains("<nav"));
    }

    #[test]
    fn a_verdict_says_its_words() {
        let names = [Verdict::Supported, Verdict::NotSupported, Verdict::Undecided, Verdict::NotMeasured, Verdict::NotJudged]
            .map(|v| v.to_string());
        assert_eq!(names, ["supported", "not supported", "undecided", "not measured", "not judged"]);
        assert!(page().contains("<span class=\"badge\">not supported</span> x &lt; y"));
    }
}
