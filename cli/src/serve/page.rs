//! The page: one file that asks nobody but this server.

use super::reply::{Reply, of};
use crate::step::{SCRIPT, STYLE};
use hyper::body::Bytes;
use hyper::header::{CONTENT_SECURITY_POLICY, HeaderValue};
use sha2::{Digest, Sha256};

/// The page, and the header that lets a browser run its script and no other.
pub struct Page {
    html: Bytes,
    policy: Option<HeaderValue>,
}

impl Page {
    /// Puts the parts together.
    pub fn new() -> Page {
        let style = format!("{STYLE}{}", include_str!("page.css"));
        let script = format!("{SCRIPT}{}", include_str!("page.js"));
        let html = include_str!("page.html").replacen("/*STYLE*/", &style, 1).replacen("/*SCRIPT*/", &script, 1);
        let [style, script] = [style, script].map(|text| base64(&Sha256::digest(text.as_bytes())));
        let policy = format!(
            "default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; connect-src 'self'; img-src data:; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        Page { html: Bytes::from(html), policy: HeaderValue::from_str(&policy).ok() }
    }

    /// The answer to `GET /`.
    pub fn reply(&self) -> Reply {
        let mut reply = of(self.html.clone(), "text/html; charset=utf-8");
        if let Some(policy) = &self.policy {
            reply.headers_mut().insert(CONTENT_SECURITY_POLICY, policy.clone());
        }
        reply
    }
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().enumerate().fold(0, |bits, (i, &byte)| bits | usize::from(byte) << (16 - 8 * i));
        for i in 0..4 {
            out.push(if i <= chunk.len() { char::from(DIGITS[bits >> (18 - 6 * i) & 63]) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (text, wanted) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE="), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(text.as_bytes()), wanted);
        }
    }

    #[test]
    fn the_page_is_whole_and_asks_nobody_else() {
        let page = String::from_utf8(Page::new().html.to_vec()).unwrap();
        assert!(!page.contains("/*STYLE*/") && !page.contains("/*SCRIPT*/") && page.contains("drawSteps"));
        for part in ["http:", "https:", "src=", "url(", "@import", "innerHTML", "insertAdjacentHTML", "document.write", "eval("] {
            // The name of the SVG namespace is no address that is asked.
            assert!(!page.replace("http://www.w3.org/2000/svg", "").contains(part), "{part}");
        }
        assert_eq!(page.matches("</script").count(), 1, "the script ends once");
    }
}
