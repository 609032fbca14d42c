//! Tokenising the IMDB training reviews: `cargo bench --bench tokenize -- --data aclImdb_v1.tar.gz --model DIR`. `RAYON_NUM_THREADS` sets
//! the threads; `--memory-only` leaves the times of the archive out. The last line is JSON. `benches/peers/tokenizing.py` runs this in turn
//! with Hugging Face tokenizers.

use lowrank::data::{Labels, Split, TableOptions, Tokenized, WordPiece, load, load_encoded};
use lowrank::{Error, Result};
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use std::time::Instant;

/// Ids kept of a review.
const MAX_LENGTH: usize = 512;

/// The value that follows `name` on the command line.
fn argument(name: &str) -> Result<PathBuf> {
    let value = std::env::args_os().skip_while(|a| a != name).nth(1);
    value.map(PathBuf::from).ok_or_else(|| Error::invalid(format!("usage: tokenize --data ARCHIVE --model DIR; {name} is missing")))
}

/// Seconds of each of five runs, in ascending order, and the last value.
fn time<T>(mut f: impl FnMut() -> Result<T>) -> Result<([f64; 5], T)> {
    let mut seconds = [0.0; 5];
    let mut last = None;
    for slot in &mut seconds {
        // Freeing the last run's value is not part of this one.
        drop(last.take());
        let start = Instant::now();
        last = Some(f()?);
        *slot = start.elapsed().as_secs_f64();
    }
    seconds.sort_by(f64::total_cmp);
    Ok((seconds, last.ok_or_else(|| Error::invalid("nothing was run"))?))
}

/// Of all ids, little-endian, one after another.
fn sha256(ids: &[u32]) -> String {
    let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

fn main() -> Result<()> {
    let (archive, folder) = (argument("--data")?, argument("--model")?);
    let (wordpiece, options) = (WordPiece::open(&folder)?, TableOptions::default());
    let read = || load(&archive, Split::Train, &options);
    let reviews = read()?;
    let bytes: usize = reviews.texts.iter().map(String::len).sum();
    // Each run starts with empty word caches.
    let (seconds, tokens) = time(|| Ok(Tokenized::new(&reviews, &wordpiece, MAX_LENGTH)))?;
    let threads = rayon::current_num_threads();
    for (name, s) in [("best", seconds[0]), ("median", seconds[2])] {
        let (n, t, mb) = (reviews.len() as f64 / s, tokens.tokens() as f64 / s / 1e6, bytes as f64 / s / 1e6);
        println!("{threads} threads, texts in memory, {name}: {s:.3} s, {n:.0} reviews/s, {t:.1} million tokens/s, {mb:.0} MB/s");
    }
    let mut report = serde_json::json!({
        "threads": threads, "reviews": reviews.len(), "bytes": bytes, "tokens": tokens.tokens(), "seconds": seconds, "sha256": sha256(&tokens.ids),
    });
    if !std::env::args().any(|a| a == "--memory-only") {
        let (reading, _) = time(read)?;
        let (streaming, streamed) =
            time(|| load_encoded(&archive, Split::Train, &options, &Labels::default(), &wordpiece, MAX_LENGTH).map(Tokenized::from))?;
        if streamed != tokens {
            return Err(Error::invalid("the stream gave other tokens than the texts in memory"));
        }
        for (name, seconds) in [("texts alone", reading), ("ids, as a stream", streaming)] {
            println!("archive to {name}: best {:.3} s, median {:.3} s", seconds[0], seconds[2]);
        }
        report["reading_seconds"] = reading.to_vec().into();
        report["stream_seconds"] = streaming.to_vec().into();
    }
    println!("{report}");
    Ok(())
}
