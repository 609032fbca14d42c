//! What the targets share: an input is cut into parts, and the parts become files.

use lowrank::nn::{Config, DistilBert};
use lowrank::tensor::DType;
use std::path::Path;
use tempfile::TempDir;

/// A line with this byte alone stands between the parts of an input. It is not in UTF-8, so that no text holds it.
const SEPARATOR: u8 = 0xff;

/// The first N parts of `data`. The last holds the rest; missing ones are empty.
pub fn parts<const N: usize>(data: &[u8]) -> [&[u8]; N] {
    let mut rest = data;
    let mut parts = [&[][..]; N];
    for part in &mut parts[..N - 1] {
        match (1..rest.len()).find(|&at| rest[at] == SEPARATOR && rest[at - 1] == b'\n' && rest.get(at + 1) == Some(&b'\n')) {
            Some(at) => (*part, rest) = (&rest[..at - 1], &rest[at + 2..]),
            None => (*part, rest) = (rest, &[]),
        }
    }
    parts[N - 1] = rest;
    parts
}

/// Numbers from the bytes of an input; zeros after its end.
pub struct Bytes<'a>(pub &'a [u8]);

impl Bytes<'_> {
    pub fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    /// A number below `n`, which is at least 1.
    pub fn below(&mut self, n: usize) -> usize {
        let word = if n > 256 { usize::from(self.byte()) << 8 | usize::from(self.byte()) } else { usize::from(self.byte()) };
        word % n
    }

    pub fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

thread_local! {
    static FOLDER: TempDir = tempfile::tempdir().expect("a temporary folder");
}

/// Calls `f` with this thread's folder. It holds `files` and nothing else. An empty file is left out.
pub fn with_files<T>(files: &[(&str, &[u8])], f: impl FnOnce(&Path) -> T) -> T {
    FOLDER.with(|folder| {
        for old in folder.path().read_dir().expect("the folder can be read") {
            // A file is made anew, because a tensor may still be a view of the old one.
            std::fs::remove_file(old.expect("an entry").path()).expect("a file can be removed");
        }
        for (name, bytes) in files.iter().filter(|(_, bytes)| !bytes.is_empty()) {
            std::fs::write(folder.path().join(name), bytes).expect("a file can be written");
        }
        f(folder.path())
    })
}

/// Most bytes of tensors in a file that [`safetensors_file`] completes.
const MOST_DATA: usize = 1 << 16;

/// A safetensors file. If `data` begins with `{`, it has two parts with a separator between them: the JSON header, and the bytes of the tensors.
/// The length of the header is then put before it, and the bytes are cut or repeated to the number that the header states. Other `data` is a
/// whole file.
pub fn safetensors_file(data: &[u8]) -> Vec<u8> {
    if !data.starts_with(b"{") {
        return data.to_vec();
    }
    let [header, bytes] = parts::<2>(data);
    let json = serde_json::from_slice::<serde_json::Value>(header).unwrap_or_default();
    let ends = json.as_object().into_iter().flatten().filter_map(|(_, entry)| entry["data_offsets"][1].as_u64());
    let wanted = ends.max().and_then(|end| usize::try_from(end).ok()).filter(|&end| end <= MOST_DATA).unwrap_or(bytes.len());
    let filler: &[u8] = if bytes.is_empty() { &[0] } else { bytes };
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header);
    file.extend(filler.iter().cycle().take(wanted));
    file
}

/// The model that adapters and states are loaded into.
pub fn small_model() -> DistilBert {
    let mut config = Config::distilbert_base();
    (config.dim, config.n_heads, config.hidden_dim, config.n_layers, config.vocab_size) = (4, 2, 6, 1, 8);
    config.max_position_embeddings = 6;
    DistilBert::random(&config, 2, DType::F32, 1).expect("a small model")
}
