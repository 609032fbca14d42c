//! `lowrank serve` over raw sockets: the API, its limits, and hostile requests.
#![cfg(feature = "serve")]

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const ENCODER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../assets/encoder");
const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/interop/recorded");
const TEXT: &str = "A film that I did not expect to like, and then could not stop thinking about.";

/// A server that ends with the test.
struct Server {
    child: Child,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// With the recorded adapters of these names.
    fn start(adapters: &[&str], more: &[&str]) -> Server {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lowrank"));
        command.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR")).args([
            "serve",
            "--port",
            "0",
            "--device",
            "cpu",
            "--any-base",
            "--model",
            ENCODER,
        ]);
        for name in adapters {
            command.args(["--adapter", &format!("{name}={RECORDED}/{name}")]);
        }
        Server::run(command.args(more))
    }

    /// Reads the address that the command prints.
    fn run(command: &mut Command) -> Server {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().trim_start_matches("http://").split(['/', '#']).next().unwrap().rsplit(':').next().unwrap();
        Server { port: port.parse().unwrap_or_else(|_| panic!("no address in {line:?}")), child }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    /// Sends bytes, and reads until the server closes the connection. An error of the connection is an empty answer.
    fn send(&self, bytes: &[u8]) -> Answer {
        let mut stream = self.connect();
        let (_, mut all) = (stream.write_all(bytes), Vec::new());
        let _ = stream.read_to_end(&mut all);
        Answer::read(&all)
    }

    /// [`Server::send`] for requests that may lack their end: after `patience` without an answer, the client closes its side.
    fn send_patiently(&self, bytes: &[u8], patience: Duration) -> Answer {
        let mut stream = self.connect();
        let (_, mut all) = (stream.write_all(bytes), Vec::new());
        stream.set_read_timeout(Some(patience)).unwrap();
        if stream.read_to_end(&mut all).is_err() {
            let _ = stream.shutdown(Shutdown::Write);
            stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            let _ = stream.read_to_end(&mut all);
        }
        Answer::read(&all)
    }

    fn request(&self, line: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut all = format!("{line} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n", self.port);
        headers.iter().for_each(|(name, value)| all += &format!("{name}: {value}\r\n"));
        all += &format!("Content-Length: {}\r\n\r\n", body.len());
        self.send(&[all.as_bytes(), body].concat())
    }

    fn post(&self, path: &str, body: &Value) -> Answer {
        self.request(&format!("POST {path}"), &[("Content-Type", "application/json")], body.to_string().as_bytes())
    }

    fn get(&self, path: &str) -> Answer {
        self.request(&format!("GET {path}"), &[], b"")
    }
}

/// An answer; status 0 if there was none.
struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Answer {
    fn read(all: &[u8]) -> Answer {
        let Some(end) = all.windows(4).position(|four| four == b"\r\n\r\n") else {
            return Answer { status: 0, headers: BTreeMap::new(), body: all.to_vec() };
        };
        let head = String::from_utf8(all[..end].to_vec()).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        if status == 100 {
            return Answer::read(&all[end + 4..]);
        }
        let headers = lines.map(|line| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_string())).unwrap());
        Answer { status, headers: headers.collect(), body: all[end + 4..].to_vec() }
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {:?}", String::from_utf8_lossy(&self.body)))
    }

    /// The status, and the reason of a refusal.
    fn refusal(&self) -> (u16, String) {
        (self.status, self.json()["error"].as_str().unwrap().to_string())
    }
}

/// What `predict --json` says of the texts.
fn predicted(adapter: &str, texts: &[String]) -> Value {
    let directory = format!("{RECORDED}/{adapter}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_lowrank"));
    command.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
    command.args(["predict", "--json", "--any-base", "--device", "cpu", "--model", ENCODER, "--adapter", &directory]).args(texts);
    let out = command.output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

#[test]
fn predict_answers_as_text_embeddings_inference_and_the_hub_do() {
    let server = Server::start(&["lora", "rslora"], &[]);
    let own = &predicted("lora", &[TEXT.to_string()])["predictions"][0]["probabilities"];
    let one = server.post("/predict", &json!({ "inputs": TEXT })).json();
    let scores: BTreeMap<&str, &Value> = one.as_array().unwrap().iter().map(|p| (p["label"].as_str().unwrap(), &p["score"])).collect();
    assert_eq!((scores["LABEL_0"], scores["LABEL_1"]), (&own[0], &own[1]));
    assert!(one[0]["score"].as_f64() > one[1]["score"].as_f64(), "the highest score comes first");
    assert_eq!(server.post("/predict", &json!({ "inputs": [TEXT] })).json(), one);
    assert_eq!(server.post("/predict", &json!({ "inputs": [[TEXT], ["Bad."], [TEXT]] })).json()[2], one);
    let raw = server.post("/predict", &json!({ "inputs": TEXT, "raw_scores": true })).json();
    let z = raw[0]["score"].as_f64().unwrap() - raw[1]["score"].as_f64().unwrap();
    assert!((1.0 / (1.0 + (-z).exp()) - one[0]["score"].as_f64().unwrap()).abs() < 1e-12);
    assert_ne!(server.post("/predict", &json!({ "inputs": TEXT, "adapter": "rslora" })).json(), one);
    assert_eq!(server.post("/", &json!({ "inputs": TEXT, "parameters": {} })).json(), json!([one]));
    let two = server.post("/", &json!({ "inputs": [TEXT, "Bad."], "parameters": { "top_k": 1, "function_to_apply": "none" } })).json();
    assert_eq!((two.as_array().unwrap().len(), &two[0]), (2, &json!([raw[0]])));

    let info = server.get("/info").json();
    assert_eq!(
        (&info["model_id"], &info["adapters"][1]["name"], &info["max_client_batch_size"]),
        (&json!("lora"), &json!("rslora"), &json!(32))
    );
    assert_eq!(server.get("/health").status, 200);
    let metrics = String::from_utf8(server.get("/metrics").body).unwrap();
    assert!(metrics.contains("lowrank_requests_total{path=\"/predict\",status=\"200\"} 5"), "{metrics}");
    let paths: Vec<String> = server.get("/openapi.json").json()["paths"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(paths.len(), 12, "{paths:?}");
    for path in paths {
        assert_ne!(server.get(&path).status, if path == "/api/watch" { 200 } else { 404 }, "{path} is in the file and not in the server");
    }
}

#[test]
fn what_is_refused_says_why() {
    let server = Server::start(&["lora"], &[]);
    let long = "word ".repeat(500);
    for (body, status, reason) in [
        (json!({ "inputs": long }), 413, "more than 128 tokens"),
        (json!({ "inputs": vec![vec!["a"]; 33] }), 413, "33 texts; a request may have 32"),
        (json!({ "inputs": ["a", "b"] }), 422, "a pair of texts"),
        (json!({ "inputs": [["a", "b"]] }), 422, "a pair of texts"),
        (json!({ "inputs": ["a", "b", "c"] }), 422, "must be a string, or a batch"),
        (json!({ "inputs": [] }), 422, "is empty"),
        (json!({ "inputs": "" }), 422, "text 1 of \"inputs\" is empty"),
        (json!({ "inputs": [["a"], 3] }), 422, "must be a string, or a batch"),
        (json!({ "inputs": null }), 422, "\"inputs\" is missing"),
        (json!({ "inputs": "a", "raw_scores": 1 }), 422, "\"raw_scores\" must be true or false"),
        (json!({ "inputs": "a", "adapter": "<b>" }), 422, "none of the names"),
        (json!({ "inputs": "a", "truncation_direction": "Left" }), 422, "must be \"Right\""),
        (json!(["a"]), 422, "expected a JSON object"),
    ] {
        let (found, why) = server.post("/predict", &body).refusal();
        assert!(found == status && why.contains(reason), "{found} {why}, not {status} {reason}");
    }
    let cut = server.post("/predict", &json!({ "inputs": [["a"], [long]], "truncate": true }));
    assert_eq!((cut.status, cut.headers.get("x-truncated").map(String::as_str)), (200, Some("1")));
    assert!(!server.post("/predict", &json!({ "inputs": "a", "truncate": true })).headers.contains_key("x-truncated"));

    let json_type = ("Content-Type", "application/json");
    let refused = |line: &str, headers: &[(&str, &str)], body: &[u8]| server.request(line, headers, body).refusal();
    assert_eq!(refused("POST /predict", &[json_type], b"{\"inputs\": \"a\"").0, 400);
    assert_eq!(refused("POST /predict", &[json_type], b"{\"inputs\": \"\xff\"}").0, 400);
    assert_eq!(refused("POST /predict", &[json_type], "[".repeat(100_000).as_bytes()).0, 400);
    assert_eq!(refused("POST /predict", &[("Content-Type", "text/plain")], b"{}").0, 415);
    assert_eq!(refused("POST /predict", &[json_type], &vec![b' '; 2_000_001]).0, 413);
    assert_eq!(refused("PUT /predict", &[json_type], b"").0, 405);
    assert_eq!(refused("GET /../../etc/passwd", &[], b"").0, 404);
    assert_eq!(refused("GET /info", &[("Origin", "http://evil.example")], b"").0, 403);
    let rebound = server.send(b"GET /info HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n");
    assert_eq!(rebound.status, 421);
    // Chunks that never say their length are counted.
    let chunk = format!("{:x}\r\n{}\r\n", 1 << 20, "x".repeat(1 << 20));
    let head = format!(
        "POST /predict HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
        server.port
    );
    let mut stream = server.connect();
    stream.write_all(head.as_bytes()).unwrap();
    (0..3).for_each(|_| drop(stream.write_all(chunk.as_bytes())));
    stream.write_all(b"0\r\n\r\n").unwrap();
    let mut all = [0; 12];
    stream.read_exact(&mut all).unwrap();
    assert_eq!(&all, b"HTTP/1.1 413");
}

#[test]
fn the_page_gets_what_it_shows() {
    let server = Server::start(&["lora"], &[]);
    let page = server.get("/");
    assert!(
        page.headers["content-security-policy"].contains("script-src 'sha256-") && page.headers["content-type"].starts_with("text/html")
    );
    let answers = server.post("/api/answers", &json!({ "text": TEXT })).json();
    let adapter = &answers["adapters"][0];
    let (tokens, words) = (adapter["tokens"].as_array().unwrap(), adapter["words"].as_array().unwrap());
    assert!(tokens.first() == Some(&json!("[CLS]")) && tokens.last() == Some(&json!("[SEP]")) && words.len() > 15);
    let found = server.post("/api/attributions", &json!({ "text": TEXT, "class": 1 })).json();
    let numbers = |value: &Value| -> Vec<f64> { serde_json::from_value(value.clone()).unwrap() };
    let change = found["output"].as_f64().unwrap() - found["baseline"].as_f64().unwrap();
    let sum: f64 = numbers(&found["values"]).iter().sum();
    assert!(found["complete"] == json!(true) && (sum - change).abs() < 0.01 * change.abs(), "{found}");
    assert_eq!(found["output"], adapter["logits"][1]);
    let attention = server.post("/api/attention", &json!({ "text": TEXT, "layer": 3, "head": 2 })).json();
    for row in attention["probabilities"].as_array().unwrap() {
        assert!((numbers(row).iter().sum::<f64>() - 1.0).abs() < 1e-3 && row.as_array().unwrap().len() == tokens.len());
    }
    let without = server.post("/api/deletion", &json!({ "text": TEXT, "words": [0, 1] })).json();
    assert_eq!(without["scores"], adapter["scores"]);
    assert_eq!(without["without"][1]["text"], "film");
    let shorter = server.post("/api/answers", &json!({ "text": TEXT.replacen("film ", "", 1) })).json();
    assert_eq!(without["without"][1]["scores"], shorter["adapters"][0]["scores"]);
    for (path, body) in [
        ("attributions", json!({ "text": TEXT, "class": 2 })),
        ("attention", json!({ "text": TEXT, "layer": 4 })),
        ("deletion", json!({ "text": TEXT, "words": [99] })),
        ("answers", json!({ "text": 1 })),
    ] {
        assert_eq!(server.post(&format!("/api/{path}"), &body).status, 422, "{path}");
    }
    let steps = server.get("/api/step").json();
    assert_eq!(steps[0]["operations"].as_array().unwrap().len(), steps[1]["operations"].as_array().unwrap().len());
    assert_eq!(server.get("/api/watch").status, 404);
}

#[test]
fn a_training_step_of_bert_adapts_its_own_linears() {
    let dir = tempfile::tempdir().unwrap();
    let recorded = format!("{RECORDED}/bert");
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(format!("{recorded}/base/{file}"), dir.path().join(file)).unwrap();
    }
    // The 24 tokens that the base has.
    let words = (5..24).map(|i| format!("word{i}"));
    let tokens: Vec<String> = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(String::from).into_iter().chain(words).collect();
    std::fs::write(dir.path().join("vocab.txt"), tokens.join("\n")).unwrap();
    let arguments = ["serve", "--port", "0", "--device", "cpu", "--any-base", "--model", dir.path().to_str().unwrap()];
    let mut command = Command::new(env!("CARGO_BIN_EXE_lowrank"));
    command.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR")).args(arguments);
    let server = Server::run(command.args(["--adapter", &format!("{recorded}/query-value")]));
    let steps = server.get("/api/step").json();
    assert_eq!(steps[0]["title"], "LoRA on query, value, r = 8");
    assert_eq!(steps[0]["operations"].as_array().unwrap().len(), steps[1]["operations"].as_array().unwrap().len());
}

#[test]
fn answers_are_bit_for_bit_those_of_a_single_text_whatever_is_computed_with_it() {
    let words = ["good", "bad", "film", "plot", "I", "never", "liked", "unbelievably", "it", ","];
    let texts: Vec<String> = (0..40).map(|i| (0..=3 * i % 41).map(|j| words[(i * 7 + j * j) % 10]).collect::<Vec<_>>().join(" ")).collect();
    let single: Vec<Value> =
        texts.iter().map(|text| predicted("lora", std::slice::from_ref(text))["predictions"][0]["probabilities"].clone()).collect();
    let server = Server::start(&["lora"], &[]);
    let by_label = |answer: &Value| -> Vec<Value> {
        let mut all: Vec<(String, Value)> =
            answer.as_array().unwrap().iter().map(|p| (p["label"].to_string(), p["score"].clone())).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all.into_iter().map(|(_, score)| score).collect()
    };
    std::thread::scope(|scope| {
        for client in 0..16 {
            let (server, texts, single) = (&server, &texts, &single);
            scope.spawn(move || {
                for i in (0..texts.len()).map(|i| (i * 3 + client) % texts.len()) {
                    let answer = server.post("/predict", &json!({ "inputs": texts[i] })).json();
                    assert_eq!(json!(by_label(&answer)), single[i], "{}", texts[i]);
                    let batch: Vec<[&String; 1]> = texts[i / 3 * 3..].iter().take(3).map(|text| [text]).collect();
                    let answers = server.post("/predict", &json!({ "inputs": batch })).json();
                    for (j, answer) in answers.as_array().unwrap().iter().enumerate() {
                        assert_eq!(json!(by_label(answer)), single[i / 3 * 3 + j]);
                    }
                }
            });
        }
    });
    let metrics = String::from_utf8(server.get("/metrics").body).unwrap();
    let count = |name: &str| metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok()).unwrap();
    assert!(count("lowrank_batches_total ") < 0.9 * 16.0 * 80.0, "requests that waited were computed together: {metrics}");
}

#[test]
fn a_full_queue_answers_429_and_the_server_goes_on() {
    let server = Server::start(&["lora"], &["--max-concurrent-requests", "1"]);
    let long = vec![["word ".repeat(100)]; 32];
    let found: Vec<u16> = std::thread::scope(|scope| {
        let ask = || scope.spawn(|| server.post("/predict", &json!({ "inputs": long })).status);
        let all: Vec<_> = (0..24).map(|_| ask()).collect();
        all.into_iter().map(|client| client.join().unwrap()).collect()
    });
    assert!(found.contains(&200) && found.contains(&429) && found.iter().all(|status| [200, 429].contains(status)), "{found:?}");
    assert_eq!(server.post("/predict", &json!({ "inputs": "a" })).status, 200);
}

#[test]
fn other_addresses_need_a_token() {
    let program = |arguments: &[&str]| Command::new(env!("CARGO_BIN_EXE_lowrank")).args(arguments).output().unwrap();
    let out = program(&["serve", "--host", "0.0.0.0", "--watch", "."]);
    assert!(out.status.code() == Some(1) && String::from_utf8_lossy(&out.stderr).contains("give a --token"));
    assert_eq!(program(&["serve"]).status.code(), Some(1));
    let server = Server::start(&["lora"], &["--host", "0.0.0.0", "--token", "secret"]);
    assert_eq!(server.get("/info").status, 401);
    assert_eq!(server.request("GET /info", &[("Authorization", "Bearer secret")], b"").status, 200);
    assert_eq!((server.get("/").status, server.get("/health").status), (200, 200));
}

#[cfg(unix)]
#[test]
fn it_ends_cleanly_when_it_is_told_to() {
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut server = Server::start(&["lora"], &[]);
        // An idle connection does not keep it.
        let _idle = server.connect();
        kill(Pid::from_raw(server.child.id() as i32), signal).unwrap();
        let started = Instant::now();
        assert_eq!(server.child.wait().unwrap().code(), Some(0), "{signal}");
        assert!(started.elapsed() < Duration::from_secs(8));
    }
}

#[test]
fn idle_connections_do_not_keep_others_out() {
    let server = Server::start(&["lora"], &[]);
    let idle: Vec<TcpStream> = (0..600).map(|_| server.connect()).collect();
    let started = Instant::now();
    assert_eq!(server.get("/health").status, 200);
    // A head has 30 s. Without room an idle connection has 2 s.
    assert!(started.elapsed() < Duration::from_secs(20));
    drop(idle);
}

#[test]
fn a_run_is_watched_without_a_model() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("metrics.jsonl"), "{\"step\":1,\"steps\":4,\"loss\":0.5,\"lr\":0.1,\"grad_norm\":1.0}\n").unwrap();
    let arguments = ["serve", "--port", "0", "--watch", dir.path().to_str().unwrap()];
    let server = Server::run(Command::new(env!("CARGO_BIN_EXE_lowrank")).args(arguments));
    let run = server.get("/api/watch").json();
    assert_eq!((&run["state"], &run["step"], &run["points"][0]["loss"]), (&json!("training"), &json!(1), &json!(0.5)));
    assert_eq!(server.post("/predict", &json!({ "inputs": "a" })).status, 503);
}

/// Random numbers: xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % n
    }

    fn of<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.below(all.len())]
    }
}

const MARK: &str = "<img src=x onerror=alert(1)>";

/// The bytes of one hostile request. Each kind is one of those that servers have failed on.
fn hostile(random: &mut Random, port: u16) -> Vec<u8> {
    let methods = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT", "PATCH", "get", "<script>", "P\0ST", ""];
    let paths = [
        "/",
        "/predict",
        "/info",
        "/metrics",
        "/api/answers",
        "/api/attributions",
        "/api/deletion",
        "/api/attention",
        "/api/watch",
        "/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/..%5c..%5cwindows",
        "//evil.example/",
        "http://evil.example/",
        "*",
        "/predict?<script>alert(1)</script>",
        "/\u{e9}",
        "/%00",
        "/predict#x",
        "",
        " ",
        MARK,
    ];
    let own = format!("127.0.0.1:{port}");
    let hosts = [own.as_str(), own.as_str(), own.as_str(), "evil.example", "", "127.0.0.1:1", MARK, "[::1", "a\tb"];
    let headers = [
        "Content-Type: application/json",
        "Content-Type: application/json",
        "Content-Type: application/json",
        "Content-Type: text/html",
        "Origin: http://evil.example",
        "Origin: null",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: gzip",
        "Content-Length: 99999999999999999999",
        "Content-Length: -1",
        "Content-Length: 5, 6",
        "Expect: 100-continue",
        "Expect: <b>",
        "Connection: close",
        "Connection: upgrade\r\nUpgrade: h2c",
        "Range: bytes=0-",
        "X-Forwarded-For: <script>",
        " folded: yes",
        "no colon",
        "Accept-Encoding: gzip",
        "Sec-Fetch-Site: cross-site",
        "Authorization: Basic <b>",
        ":empty",
        "X: \u{1}\u{2}",
        "Cookie: a=<svg onload=1>",
    ];
    let bodies: [&[u8]; 22] = [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\"<script>alert(1)</script>\"",
        b"{\"inputs\":",
        b"{\"inputs\":\"<img src=x onerror=alert(1)>\"}",
        b"{\"inputs\":\"\xff\xfe\"}",
        b"{\"inputs\":\"\\ud800\"}",
        b"{\"inputs\":[[\"a\"],[\"<b>\"]],\"truncate\":\"<b>\"}",
        b"{\"<script>\":1}",
        b"{\"inputs\":\"a\",\"adapter\":\"<img src=x onerror=alert(1)>\"}",
        b"{\"inputs\":1e999}",
        b"{\"text\":\"<script>alert(1)</script>\",\"words\":[0]}",
        b"{\"text\":\"a b\",\"layer\":-1}",
        b"{\"text\":\"a b\",\"words\":[18446744073709551616]}",
        b"{\"text\":\"a\",\"class\":1.5}",
        b"{\"inputs\":\"a\",\"inputs\":[]}",
        b"\x00\x01\x02",
        b"5\r\n{\"inp\r\nZZ\r\n",
        b"ffffffffffffffff\r\n",
        b"{\"inputs\":\"a\",\"parameters\":{\"top_k\":-1}}",
    ];
    if random.below(20) == 0 {
        // Not HTTP at all.
        return (0..random.below(300)).map(|_| random.below(256) as u8).collect();
    }
    let mut body = random.of(&bodies).to_vec();
    match random.below(30) {
        0 => body = b"[".repeat(1 + random.below(50_000)),
        1 => body = format!("{{\"inputs\":{}1{}}}", "[".repeat(127), "]".repeat(127)).into_bytes(),
        2 => body = format!("{{\"inputs\":\"{}\"}}", "\u{1f600} ".repeat(random.below(3000))).into_bytes(),
        _ => {}
    }
    // Most have only some fault, so that they get far.
    let version = if random.below(8) > 0 { "HTTP/1.1" } else { random.of(&["HTTP/1.0", "HTTP/2.0", "HTTP/9", "ICY", ""]) };
    let method = if random.below(2) == 0 { "POST" } else { random.of(&methods) };
    let mut request = format!("{method} {} {}\r\nHost: {}\r\n", random.of(&paths), version, random.of(&hosts));
    if random.below(2) == 0 {
        request += "Content-Type: application/json\r\n";
    } else {
        (0..random.below(5)).for_each(|_| request += &format!("{}\r\n", random.of(&headers)));
    }
    match random.below(40) {
        0 => request += &format!("X-Long: {}\r\n", "a".repeat(random.below(60_000))),
        1 => (0..random.below(300)).for_each(|i| request += &format!("X-{i}: 1\r\n")),
        _ => {}
    }
    if random.below(4) > 0 {
        request += &format!("Content-Length: {}\r\n", body.len() + [0, 0, 0, 0, 7][random.below(5)]);
    }
    let mut bytes = [request.as_bytes(), b"\r\n", &body].concat();
    if random.below(10) == 0 {
        let at = random.below(bytes.len());
        bytes[at] = random.below(256) as u8;
    }
    if random.below(10) == 0 {
        bytes.truncate(random.below(bytes.len() + 1));
    }
    bytes
}

/// No answer but the page is HTML, and the page never holds what was sent.
fn check(answer: &Answer, bytes: &[u8]) {
    let sent = || String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned();
    // No answer: the connection was closed, which is right for what is not HTTP.
    if answer.status == 0 {
        return;
    }
    let kind = answer.headers.get("content-type").map_or("", String::as_str);
    let found = String::from_utf8_lossy(&answer.body);
    if kind.starts_with("text/html") {
        assert!(!found.contains("onerror=") && answer.headers.contains_key("content-security-policy"), "{}", sent());
    } else {
        let harmless = kind.starts_with("application/json") || kind.starts_with("text/plain") || answer.body.is_empty();
        assert!(harmless, "{kind:?} for {}", sent());
        assert!(
            answer.body.is_empty() || answer.headers.get("x-content-type-options").is_some_and(|value| value == "nosniff"),
            "{}",
            sent()
        );
    }
    assert!(answer.status < 500 || answer.status == 505, "{} for {}", answer.status, sent());
}

/// `LOWRANK_HOSTILE` requests, with the seed `LOWRANK_SEED`.
#[test]
fn hostile_requests_neither_stop_the_server_nor_become_html() {
    let number = |name: &str, default: u64| std::env::var(name).ok().map_or(default, |text| text.parse().unwrap());
    let (count, seed) = (number("LOWRANK_HOSTILE", 3000), number("LOWRANK_SEED", 1));
    let mut server = Server::start(&["lora"], &[]);
    // Slow senders: they hold a connection each, and nobody waits for them.
    let slow: Vec<TcpStream> = (0..50)
        .map(|i| {
            let mut stream = server.connect();
            stream.write_all(&b"POST /predict HTTP/1.1\r\nHost: 127"[..1 + i % 30]).unwrap();
            stream
        })
        .collect();
    let (threads, port) = (8, server.port);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let server = &server;
            scope.spawn(move || {
                let mut random = Random(seed.wrapping_mul(1_000_003).wrapping_add(thread + 1));
                for _ in 0..count / threads {
                    let bytes = hostile(&mut random, port);
                    check(&server.send_patiently(&bytes, Duration::from_millis(50)), &bytes);
                }
            });
        }
    });
    drop(slow);
    assert!(server.child.try_wait().unwrap().is_none(), "the server has ended");
    assert_eq!(server.post("/predict", &json!({ "inputs": TEXT })).status, 200);
}

#[test]
fn explain_draws_a_page() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("step.html");
    let run = |more: &[&str]| {
        let arguments = ["explain", "--model", ENCODER, "--html", out.to_str().unwrap()];
        Command::new(env!("CARGO_BIN_EXE_lowrank"))
            .env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"))
            .args(arguments)
            .args(more)
            .output()
            .unwrap()
    };
    assert!(run(&["</script><script>alert(1)</script>"]).status.success());
    let page = std::fs::read_to_string(&out).unwrap();
    assert_eq!(page.matches("</script>").count(), 2, "nothing of the texts ends the script");
    let again = run(&[]);
    assert!(again.status.code() == Some(1) && String::from_utf8_lossy(&again.stderr).contains("give --overwrite"));
    assert!(run(&["--overwrite"]).status.success() && Path::new(&out).exists());
}
