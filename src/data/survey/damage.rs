//! Signs that a text was decoded wrongly.

use encoding_rs::WINDOWS_1252;

/// Whether a run of letters outside ASCII is UTF-8 that was decoded as Windows-1252: encoded in Windows-1252 again, it is valid UTF-8. A run of
/// other text hardly ever is.
pub(super) fn is_misread(text: &str) -> bool {
    text.split(|c: char| c.is_ascii()).filter(|run| !run.is_empty()).any(|run| {
        let (bytes, _, unknown) = WINDOWS_1252.encode(run);
        !unknown && std::str::from_utf8(&bytes).is_ok()
    })
}

/// Whether a text has control characters besides line breaks and tabs.
pub(super) fn has_control(text: &str) -> bool {
    text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misread_texts_are_recognised() {
        for good in ["schön", "naïve café", "„so“ – 5 €", "«é»", "日本語", "Ã la carte", "", "São Paulo", "à é è ù"]
        {
            assert!(!is_misread(good), "{good}");
            let bad = WINDOWS_1252.decode_without_bom_handling(good.as_bytes()).0.into_owned();
            assert_eq!(is_misread(&bad), !good.is_ascii(), "{good} as {bad}");
        }
        assert!(is_misread("the customerâ€™s parcel"));
        assert!(has_control("a\u{0}b") && has_control("\u{1b}[2J") && !has_control("a\tb\r\nc"));
    }
}
