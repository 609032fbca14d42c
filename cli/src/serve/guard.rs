//! Who may ask: programs of this machine, or those that show the token. Of the pages in a browser, only our own may ask.
//!
//! A page of another origin can send requests to this machine. It cannot read an answer of another origin, unless a name of its own leads to this address
//! (DNS rebinding). So the Host header must name this machine, and an Origin header must be our own.

use super::reply::Refusal;
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, ORIGIN};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use std::net::IpAddr;

/// The rules of one server.
pub struct Guard {
    /// The values of the Host header that name this server. `None` accepts every value: the server then asks for a token.
    hosts: Option<Vec<String>>,
    token: Option<String>,
}

impl Guard {
    pub fn new(address: IpAddr, port: u16, token: Option<String>) -> Guard {
        let own = match address {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(v6) => format!("[{v6}]"),
        };
        let names = ["localhost", "127.0.0.1", "[::1]", own.as_str()];
        // Browsers leave the port of the protocol out.
        let bare = |name: &&str| (port == 80).then(|| name.to_string());
        let hosts = || names.iter().flat_map(|name| [Some(format!("{name}:{port}")), bare(name)]).flatten().collect();
        Guard { hosts: address.is_loopback().then(hosts), token }
    }

    /// # Errors
    /// If this request is not answered.
    pub fn check(&self, parts: &Parts) -> Result<(), Refusal> {
        let host = self.host(parts)?;
        let foreign = || Refusal::new(StatusCode::FORBIDDEN, "pages of other origins may not use this server");
        if let Some(origin) = one(&parts.headers, ORIGIN.as_str())?
            && !origin.strip_prefix("http://").is_some_and(|own| own.eq_ignore_ascii_case(host))
        {
            return Err(foreign());
        }
        let to_page = parts.method == Method::GET && parts.uri.path() == "/";
        let site = one(&parts.headers, "sec-fetch-site")?;
        // A link on another page may lead here. Other requests of that page are refused.
        let followed = to_page && one(&parts.headers, "sec-fetch-mode")? == Some("navigate");
        if site.is_some_and(|site| !["same-origin", "none"].contains(&site)) && !followed {
            return Err(foreign());
        }
        // The page holds no data, and asks for the rest with the token.
        match &self.token {
            Some(token) if !to_page && parts.uri.path() != "/health" => check_token(&parts.headers, token),
            _ => Ok(()),
        }
    }

    /// The Host header, if it names this server.
    fn host<'p>(&self, parts: &'p Parts) -> Result<&'p str, Refusal> {
        let host =
            one(&parts.headers, HOST.as_str())?.ok_or_else(|| Refusal::new(StatusCode::BAD_REQUEST, "the Host header is missing"))?;
        let elsewhere = || Refusal::new(StatusCode::MISDIRECTED_REQUEST, "the Host header does not name this server");
        let known = |name: &str| self.hosts.as_ref().is_none_or(|hosts| hosts.iter().any(|own| own.eq_ignore_ascii_case(name)));
        let target = parts.uri.authority().map(|authority| authority.as_str());
        if known(host) && target.is_none_or(|target| target.eq_ignore_ascii_case(host)) { Ok(host) } else { Err(elsewhere()) }
    }
}

/// The value of a header; `None` if it is missing.
///
/// # Errors
/// If there are several, or it is not text.
fn one<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, Refusal> {
    let mut all = headers.get_all(name).iter();
    match (all.next().map(|value| value.to_str()), all.next()) {
        (None, _) => Ok(None),
        (Some(Ok(value)), None) => Ok(Some(value)),
        _ => Err(Refusal::new(StatusCode::BAD_REQUEST, format!("the header {name} must be there once, in ASCII"))),
    }
}

/// # Errors
/// If the token is not shown. The time of the comparison tells only the length of the token.
fn check_token(headers: &HeaderMap, token: &str) -> Result<(), Refusal> {
    let shown = one(headers, AUTHORIZATION.as_str())?.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    let differences = shown.bytes().zip(token.bytes()).fold(0, |all, (a, b)| all | (a ^ b));
    if shown.len() == token.len() && differences == 0 {
        return Ok(());
    }
    Err(Refusal::new(StatusCode::UNAUTHORIZED, "show the token of this server: Authorization: Bearer TOKEN"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Request;
    use std::net::Ipv4Addr;

    /// The status of a request with these headers; 200 if it is let in.
    fn status(guard: &Guard, line: &str, headers: &[(&str, &str)]) -> u16 {
        let (method, uri) = line.split_once(' ').unwrap();
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        guard.check(&request.body(()).unwrap().into_parts().0).map_or_else(|refusal| refusal.status.as_u16(), |()| 200)
    }

    #[test]
    fn only_this_machine_and_our_own_page_are_let_in() {
        let guard = Guard::new(Ipv4Addr::LOCALHOST.into(), 8080, None);
        let own = ("host", "127.0.0.1:8080");
        for (line, headers, wanted) in [
            ("POST /predict", &[own][..], 200),
            ("POST /predict", &[("host", "LocalHost:8080")], 200),
            ("POST /predict", &[("host", "[::1]:8080")], 200),
            ("POST /predict", &[own, ("origin", "http://127.0.0.1:8080")], 200),
            ("POST /predict", &[], 400),
            ("POST /predict", &[own, own], 400),
            ("POST /predict", &[("host", "evil.example:8080")], 421),
            ("POST /predict", &[("host", "127.0.0.1:8081")], 421),
            ("POST /predict", &[("host", "127.0.0.1")], 421),
            ("POST /predict", &[("host", "127.0.0.1:8080.evil.example")], 421),
            ("POST http://evil.example/predict", &[own], 421),
            ("POST http://127.0.0.1:8080/predict", &[own], 200),
            ("POST /predict", &[own, ("origin", "http://evil.example")], 403),
            ("POST /predict", &[own, ("origin", "null")], 403),
            ("POST /predict", &[own, ("origin", "https://127.0.0.1:8080")], 403),
            // Both name this machine, but they are two origins.
            ("POST /predict", &[own, ("origin", "http://localhost:8080")], 403),
            ("GET /info", &[own, ("sec-fetch-site", "cross-site")], 403),
            ("GET /info", &[own, ("sec-fetch-site", "same-site")], 403),
            ("GET /info", &[own, ("sec-fetch-site", "same-origin")], 200),
            ("GET /", &[own, ("sec-fetch-site", "none"), ("sec-fetch-mode", "navigate")], 200),
            ("GET /", &[own, ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")], 200),
            ("GET /", &[own, ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")], 403),
        ] {
            assert_eq!(status(&guard, line, headers), wanted, "{line} {headers:?}");
        }
        let port_80 = Guard::new(Ipv4Addr::LOCALHOST.into(), 80, None);
        assert_eq!(status(&port_80, "GET /info", &[("host", "localhost")]), 200);
    }

    #[test]
    fn a_token_is_asked_for_where_there_is_one() {
        let guard = Guard::new(Ipv4Addr::UNSPECIFIED.into(), 8080, Some("secret".to_string()));
        let any = ("host", "example.org");
        for (line, headers, wanted) in [
            ("GET /", &[any][..], 200),
            ("GET /health", &[any], 200),
            ("POST /", &[any], 401),
            ("GET /info", &[any], 401),
            ("GET /info", &[any, ("authorization", "Bearer secret")], 200),
            ("GET /info", &[any, ("authorization", "Bearer secreT")], 401),
            ("GET /info", &[any, ("authorization", "Bearer secret2")], 401),
            ("GET /info", &[any, ("authorization", "secret")], 401),
            ("GET /info", &[any, ("authorization", "Bearer secret"), ("origin", "http://evil.example")], 403),
        ] {
            assert_eq!(status(&guard, line, headers), wanted, "{line} {headers:?}");
        }
    }
}
