//! The training step as a page that one steps through with the arrow keys. One file, no network.

use super::Step;
use lowrank::{Error, Result};

/// Draws steps inside of an element; `page.js` of the server uses it too.
pub const SCRIPT: &str = include_str!("step.js");

/// The style of all pages with scripts.
pub const STYLE: &str = include_str!("step.css");

/// The page of some steps, as HTML.
///
/// # Errors
/// If the steps have no form in JSON.
pub fn page(steps: &[Step]) -> Result<String> {
    let data = serde_json::to_string(steps).map_err(|e| Error::invalid(format!("json: {e}")))?;
    // Inside of a script element, only "</script" and "<!--" end or change what is read.
    let data = data.replace('<', "\\u003c");
    let title = "One training step";
    Ok(format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<meta name=\"color-scheme\" content=\"light dark\"/>\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'\"/>\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n<div id=\"steps\"></div>\n</main>\n\
         <script id=\"data\" type=\"application/json\">{data}</script>\n<script>\n{SCRIPT}\n\
         drawSteps(document.getElementById(\"steps\"), JSON.parse(document.getElementById(\"data\").textContent));\n</script>\n</body>\n</html>\n"
    ))
}
