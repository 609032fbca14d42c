//! Why a try came to nothing, and what curl's exit statuses mean.

use lowrank::Error;
use std::process::ExitStatus;

/// What a try gives.
pub type Tried<T> = std::result::Result<T, Trouble>;

/// Why a request came to nothing.
pub enum Trouble {
    /// curl is not installed.
    NoCurl,
    /// No connection came about.
    Unreachable(String),
    /// It was cut, or the server asks for patience.
    Passing(String),
    /// The server refuses.
    Status(Refusal),
    /// Another try would change nothing.
    Lasting(Error),
}

/// A status that is no success.
pub struct Refusal {
    /// Whose, without what is secret in it.
    pub url: String,
    pub status: u16,
    /// The hub's word for it: `RepoNotFound`, `EntryNotFound`, `GatedRepo`.
    pub code: String,
}

impl From<Error> for Trouble {
    fn from(e: Error) -> Trouble {
        Trouble::Lasting(e)
    }
}

/// What an exit status of curl means. <https://curl.se/libcurl/c/libcurl-errors.html>
pub fn complaint(status: ExitStatus, said: &str, secret: Option<&str>, url: &str) -> Trouble {
    let said = secret.map_or(said.to_string(), |secret| said.replace(secret, "***"));
    let said = said.lines().next().unwrap_or_default();
    // "curl: (6) Could not resolve host: hub"
    let said = said.strip_prefix("curl: (").and_then(|rest| rest.split_once(") ")).map_or(said, |(_, words)| words);
    match status.code() {
        Some(5..=7) => {
            let advice = "check the network, and https_proxy if there is a proxy";
            Trouble::Unreachable(format!("{url}: no connection ({said}); {advice}"))
        }
        Some(16 | 18 | 28 | 35 | 52 | 55 | 56 | 92 | 95 | 96) => Trouble::Passing(format!("{url}: the connection was cut ({said})")),
        Some(51 | 60 | 77 | 90 | 91) => {
            let advice = "check the clock and the system's certificates, and a proxy's if there is one";
            Error::invalid(format!("{url}: the server's certificate is not trusted ({said}); {advice}")).into()
        }
        Some(code) => Error::invalid(format!("{url}: curl failed ({code}: {said})")).into(),
        None => Error::invalid(format!("{url}: curl was stopped")).into(),
    }
}
