//! A local server with prepared answers. It records all requests.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    pub path: String,
    /// Header lines as received.
    pub headers: String,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.lines().find_map(|line| line.split_once(": ").filter(|(n, _)| n.eq_ignore_ascii_case(name)));
        found.map(|(_, value)| value)
    }

    /// First byte of the requested range.
    pub fn from(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// An answer.
pub struct Answer {
    status: u16,
    headers: Vec<String>,
    body: Vec<u8>,
    /// Bytes of the body to send before the connection breaks.
    cut: Option<usize>,
    /// Break by a reset instead of an early end.
    reset: bool,
    length: bool,
}

impl Answer {
    pub fn new(status: u16) -> Answer {
        Answer { status, headers: Vec::new(), body: Vec::new(), cut: None, reset: false, length: true }
    }

    pub fn with(mut self, header: impl Into<String>) -> Answer {
        self.headers.push(header.into());
        self
    }

    pub fn body(mut self, body: &[u8]) -> Answer {
        self.body = body.to_vec();
        self
    }

    /// The requested range, or the whole body.
    pub fn ranged(asked: &Asked, body: &[u8]) -> Answer {
        match asked.from() {
            Some(from) if from >= body.len() => Answer::new(416).with(format!("Content-Range: bytes */{}", body.len())),
            Some(from) => {
                let range = format!("Content-Range: bytes {from}-{}/{}", body.len() - 1, body.len());
                Answer::new(206).with(range).body(&body[from..])
            }
            None => Answer::new(200).body(body),
        }
    }

    pub fn cut(mut self, after: usize, reset: bool) -> Answer {
        (self.cut, self.reset) = (Some(after), reset);
        self
    }

    /// Without a content length.
    pub fn unmeasured(mut self) -> Answer {
        self.length = false;
        self
    }
}

pub struct Server {
    pub port: u16,
    log: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    /// Serves until the test program ends.
    pub fn start(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server { port: listener.local_addr().unwrap().port(), log: Arc::default() };
        let (log, answer) = (server.log.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (log, answer) = (log.clone(), answer.clone());
                std::thread::spawn(move || serve(stream, &log, &*answer));
            }
        });
        server
    }

    /// Its address, with `host` as name of this machine.
    pub fn at(&self, host: &str) -> String {
        format!("http://{host}:{}", self.port)
    }

    pub fn log(&self) -> Vec<Asked> {
        self.log.lock().unwrap().clone()
    }

    /// The requests with this method.
    pub fn asked(&self, method: &str) -> Vec<Asked> {
        self.log().into_iter().filter(|asked| asked.method == method).collect()
    }
}

fn serve(mut stream: TcpStream, log: &Mutex<Vec<Asked>>, answer: &dyn Fn(&Asked) -> Answer) -> Option<()> {
    // The last byte stays unread, so closing the connection resets it.
    let mut text = String::new();
    let mut reader = BufReader::with_capacity(1, stream.try_clone().ok()?);
    while !text.ends_with("\n\r") {
        text.push(*reader.fill_buf().ok()?.first()? as char);
        reader.consume(1);
    }
    let (first, headers) = text.split_once("\r\n")?;
    let mut words = first.split(' ').map(String::from);
    let asked = Asked { method: words.next()?, path: words.next()?, headers: headers.to_string() };
    let Answer { status, headers, body, cut, reset, length } = answer(&asked);
    log.lock().unwrap().push(asked.clone());
    let mut head = format!("HTTP/1.1 {status} Status\r\nConnection: close\r\n");
    headers.iter().for_each(|header| head += &format!("{header}\r\n"));
    if length && !headers.iter().any(|header| header.starts_with("Content-Length")) {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    stream.write_all((head + "\r\n").as_bytes()).ok()?;
    if asked.method != "HEAD" {
        stream.write_all(&body[..cut.unwrap_or(body.len()).min(body.len())]).ok()?;
    }
    if reset && cut.is_some() {
        // Closing now would lose data in transit.
        std::thread::sleep(Duration::from_millis(100));
    } else {
        reader.read_exact(&mut [0]).ok()?;
    }
    Some(())
}
