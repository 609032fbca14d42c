//! Tells the two kinds of TSV files apart. In GLUE's files a quotation mark is a plain character. In those of pandas and spreadsheets, a field
//! with a tab, a line break or a quotation mark is quoted, and quotation marks inside it are doubled.

/// Whether `text` is of the second kind: unquoted fields have no quotation mark, every quote is closed at the end of its field, and either a
/// field needs its quotes or all fields are quoted.
pub(super) fn is_quoted(text: &str) -> bool {
    let (mut rest, mut needed, mut all) = (text, false, true);
    let ends = |rest: &str| rest.is_empty() || rest.starts_with(['\t', '\n']) || rest.starts_with("\r\n");
    while !rest.is_empty() {
        if let Some(inside) = rest.strip_prefix('"') {
            let Some((field, after)) = closed(inside) else { return false };
            if !ends(after) {
                return false;
            }
            needed |= field.contains(['"', '\t', '\n']);
            rest = after;
        } else {
            let length = rest.find(['\t', '\n']).unwrap_or(rest.len());
            if rest[..length].contains('"') {
                return false;
            }
            all &= length == 0;
            rest = &rest[length..];
        }
        rest = rest.strip_prefix("\r\n").or_else(|| rest.strip_prefix(['\t', '\n'])).unwrap_or(rest);
    }
    needed || (all && text.contains('"'))
}

/// The field after an opening quotation mark, with its doubled marks, and the text after the closing mark.
fn closed(inside: &str) -> Option<(&str, &str)> {
    let mut from = 0;
    loop {
        let mark = from + inside[from..].find('"')?;
        if !inside[mark + 1..].starts_with('"') {
            return Some((&inside[..mark], &inside[mark + 1..]));
        }
        from = mark + 2;
    }
}

#[cfg(test)]
mod tests {
    use super::is_quoted;

    #[test]
    fn the_two_kinds_are_told_apart() {
        for quoted in [
            "text\tlabel\n\"He said \"\"no\"\"\"\t1\nplain\t0\n",
            "text\tlabel\r\n\"a\tb\"\t1\r\n",
            "text\tlabel\n\"two\nlines\"\t1\n",
            "\"text\"\t\"label\"\n\"a\"\t\"1\"\n",
        ] {
            assert!(is_quoted(quoted), "{quoted}");
        }
        for literal in [
            "text\tlabel\n\"Hex County\" is\t1\n",
            "text\tlabel\n\"open\t1\n",
            "text\tlabel\nsay \"no\"\t1\n\"He said \"\"no\"\"\"\t1\n",
            "text\tlabel\n\"whole\"\t1\n",
            "text\tlabel\nplain\t1\n",
            "",
        ] {
            assert!(!is_quoted(literal), "{literal}");
        }
    }
}
