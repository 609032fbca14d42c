//! One HTTP request, made by the program curl: the headers, and the body as it arrives.

use super::settings::Hub;
use super::trouble::{Refusal, Tried, Trouble, complaint};
use super::url;
use lowrank::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

/// Most redirects that are followed.
const REDIRECTS: usize = 10;

/// Headers with which the hub describes a file whose content is on another server.
const DESCRIBED: [&str; 3] = ["x-repo-commit", "x-linked-etag", "x-linked-size"];

/// Most bytes of headers that are read.
const HEADERS: u64 = 1 << 18;

/// Which request to send.
#[derive(Clone, Copy)]
pub enum Ask {
    /// Only the headers, of the first answer among the redirects that describes the file.
    Head,
    /// The content, from this byte on.
    Get(u64),
}

/// The answer of a server.
pub struct Answer {
    /// URL with credentials removed.
    pub url: String,
    pub status: u16,
    headers: Vec<(String, String)>,
    running: Running,
    body: BufReader<ChildStdout>,
}

/// A running curl; it is killed when this is dropped.
struct Running {
    child: Child,
    secret: Option<String>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // Either it has ended, or the rest of the answer is not needed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Requests `start` and follows redirects. They are followed here and not by curl for two reasons: the hub's headers are in a redirect, and
/// the token must be sent to the endpoint's server only.
pub fn request(hub: &Hub, start: &str, ask: Ask) -> Tried<Answer> {
    let mut at = start.to_string();
    for _ in 0..=REDIRECTS {
        let token = hub.token.as_deref().filter(|_| url::same_origin(&at, &hub.endpoint));
        let answer = once(hub, &at, ask, token)?;
        let known = matches!(ask, Ask::Head) && DESCRIBED.iter().all(|name| answer.header(name).is_some());
        let next = answer.header("location").filter(|_| matches!(answer.status, 301 | 302 | 303 | 307 | 308) && !known);
        let Some(next) = next else { return answer.unless_refused(known) };
        let bad = || Error::invalid(format!("{}: redirects to {}, which is not followed", answer.url, url::shown(next)));
        at = url::follow(&at, next).ok_or_else(bad)?;
    }
    Err(Error::invalid(format!("{}: more than {REDIRECTS} redirects", url::shown(start))).into())
}

/// One request without redirects.
fn once(hub: &Hub, at: &str, ask: Ask, token: Option<&str>) -> Tried<Answer> {
    if !url::is_http(at) {
        return Err(Error::invalid(format!("{}: expected an address that begins with https:// or http://", url::shown(at))).into());
    }
    let mut command = Command::new(&hub.curl);
    command.args(["--disable", "--config", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => Trouble::NoCurl,
        _ => Error::io(&hub.curl, e).into(),
    })?;
    let mut running = Running { child, secret: token.map(String::from) };
    let (stdin, stdout) = (running.child.stdin.take(), running.child.stdout.take());
    let (Some(mut stdin), Some(stdout)) = (stdin, stdout) else { return Err(Error::invalid("curl: no pipe to it").into()) };
    // If curl ended before it read this, its exit status tells the reason.
    let _ = stdin.write_all(config(at, ask, token)?.as_bytes());
    drop(stdin);
    let mut body = BufReader::with_capacity(1 << 16, stdout);
    let url = url::shown(at);
    match headers(&mut body) {
        Some((status, headers)) => Ok(Answer { url, status, headers, running, body }),
        // curl has not ended, and would wait until the rest is read.
        None if !body.fill_buf().is_ok_and(<[u8]>::is_empty) => {
            let problem =
                format!("the answer is no HTTP, or has more than {} KiB of headers: check this address, or the proxy", HEADERS >> 10);
            Err(Error::invalid(format!("{url}: {problem}")).into())
        }
        None => Err(running.trouble(&url).unwrap_or_else(|| Trouble::Passing(format!("{url}: the answer is no HTTP")))),
    }
}

/// The configuration that curl reads from standard input. A command line would show the token to other users.
fn config(at: &str, ask: Ask, token: Option<&str>) -> Tried<String> {
    let mut lines = String::from("silent\nshow-error\ngloboff\ninclude\nsuppress-connect-headers\nproto = \"=http,https\"\n");
    lines += "connect-timeout = 20\nspeed-limit = 1\nspeed-time = 60\n";
    lines += concat!("user-agent = \"lowrank/", env!("CARGO_PKG_VERSION"), "\"\n");
    if url::is_loopback(at) {
        lines += "noproxy = \"*\"\n";
    }
    match ask {
        Ask::Head => lines += "head\nmax-time = 60\n",
        Ask::Get(0) => {}
        Ask::Get(from) => lines += &format!("header = \"Range: bytes={from}-\"\n"),
    }
    if let Some(token) = token {
        if !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Error::invalid("HF_TOKEN or its file: holds characters that no token has; copy the token anew").into());
        }
        lines += &format!("header = \"Authorization: Bearer {}\"\n", quoted(token));
    }
    Ok(lines + &format!("url = \"{}\"\n", quoted(at)))
}

fn quoted(word: &str) -> String {
    word.replace('\\', "\\\\").replace('"', "\\\"")
}

/// Status and headers of the first answer that is not a 1xx one. Names of headers become lower case.
fn headers(from: &mut impl BufRead) -> Option<(u16, Vec<(String, String)>)> {
    let mut from = from.take(HEADERS);
    let mut line = || {
        let mut bytes = Vec::new();
        from.read_until(b'\n', &mut bytes).ok().filter(|_| bytes.ends_with(b"\n"))?;
        Some(String::from_utf8_lossy(&bytes).trim_end().to_string())
    };
    loop {
        let status = line()?.strip_prefix("HTTP/")?.split(' ').nth(1)?.parse().ok()?;
        let mut headers = Vec::new();
        loop {
            let line = line()?;
            if line.is_empty() {
                break;
            }
            headers.extend(line.split_once(':').map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_string())));
        }
        if !(100..200).contains(&status) {
            return Some((status, headers));
        }
    }
}

impl Answer {
    /// The header `name`, given in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The header `name` as a number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.header(name)?.parse().ok()
    }

    /// Reads bytes of the body; 0 at its end.
    pub fn read(&mut self, buffer: &mut [u8]) -> Tried<usize> {
        let n = self.body.read(buffer).map_err(|e| Error::io("curl", e))?;
        let trouble = if n == 0 { self.running.trouble(&self.url) } else { None };
        trouble.map_or(Ok(n), Err)
    }

    fn unless_refused(self, known: bool) -> Tried<Answer> {
        match self.status {
            200..=299 | 416 => Ok(self),
            _ if known => Ok(self),
            408 | 429 | 500..=599 => Err(Trouble::Passing(format!("{}: status {}, the server is busy or broken", self.url, self.status))),
            status => {
                let code = self.header("x-error-code").unwrap_or_default().to_string();
                Err(Trouble::Status(Refusal { url: self.url, status, code }))
            }
        }
    }
}

impl Running {
    /// Waits for curl and returns its error, if there is one.
    fn trouble(&mut self, url: &str) -> Option<Trouble> {
        let mut said = String::new();
        if let Some(stderr) = self.child.stderr.take() {
            let _ = stderr.take(HEADERS).read_to_string(&mut said);
        }
        match self.child.wait() {
            Ok(status) if status.success() => None,
            Ok(status) => Some(complaint(status, &said, self.secret.as_deref(), url)),
            Err(e) => Some(Error::io("curl", e).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preliminary_answers_are_skipped() {
        let text = b"HTTP/1.1 103 Early Hints\r\nETag: no\r\n\r\nHTTP/2 200 \r\nETag: W/\"a\"\r\nX: 1:2\r\n\r\nbody";
        let mut from = &text[..];
        let (status, found) = headers(&mut from).unwrap();
        assert_eq!((status, from), (200, &b"body"[..]));
        assert_eq!(found, [("etag".into(), "W/\"a\"".into()), ("x".into(), "1:2".into())]);
        assert!(headers(&mut &text[..40]).is_none() && headers(&mut &b"<html>\n\n"[..]).is_none());
    }

    #[test]
    fn nothing_leaves_its_line_of_the_configuration() {
        let text = config(r#"http://hub/a"\n"#, Ask::Get(7), Some(r#"t"\"#)).ok().unwrap();
        assert!(text.contains("url = \"http://hub/a\\\"\\\\n\"\n") && text.contains("Bearer t\\\"\\\\\"\n"), "{text}");
        assert!(text.contains("Range: bytes=7-") && !text.contains("noproxy"));
        let refused = config("http://hub/a", Ask::Head, Some("secret\nurl = \"http://evil\""));
        assert!(matches!(refused, Err(Trouble::Lasting(e)) if !e.to_string().contains("secret")));
    }
}
