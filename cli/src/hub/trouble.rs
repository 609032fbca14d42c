//! Why a request failed, and what curl's exit statuses mean.

use lowrank::Error;
use std::process::ExitStatus;

/// The result of a request.
pub type Tried<T> = std::result::Result<T, Trouble>;

/// Why a request failed.
pub enum Trouble {
    /// curl is not installed.
    NoCurl,
    /// No connection could be made.
    Unreachable(String),
    /// The connection was cut, or the server is busy: a retry may help.
    Passing(String),
    /// The server refused the request.
    Status(Refusal),
    /// A retry would not help.
    Lasting(Error),
}

/// A status that means failure.
pub struct Refusal {
    /// URL with credentials removed.
    pub url: String,
    pub status: u16,
    /// The hub's error code: `RepoNotFound`, `EntryNotFound`, `GatedRepo`.
    pub code: String,
}

impl From<Error> for Trouble {
    fn from(e: Error) -> Trouble {
        Trouble::Lasting(e)
    }
}

/// The error for an exit status of curl. `said` is its standard error; `secret` is removed from it. <https://curl.se/libcurl/c/libcurl-errors.html>
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
