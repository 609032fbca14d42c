//! Checks the base that a command reads: all numbers must be finite, and its hash must be the one that an adapter names. Both checks read all
//! bytes, so the result is cached until the files change.

use super::notes::warning;
use lowrank::data::hash_file;
use lowrank::files::{is_there, read_bytes, write_file};
use lowrank::lora::{About, BaseSettings};
use lowrank::nn::{Config, DistilBert, TOKENIZER_FILES, fingerprint, in_head};
use lowrank::tensor::safetensors::SafeTensors;
use lowrank::text::hex;
use lowrank::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A file that changed less than this ago could change again without a new time stamp. So its hash is not cached yet.
const SETTLED: Duration = Duration::from_secs(2);

/// The cached hash of a base whose numbers are finite.
#[derive(Serialize, Deserialize)]
struct Kept {
    key: String,
    hash: String,
}

/// The hash of the base in `folder`, see [`fingerprint`]. It is cached in `cache`; a cache that cannot be read or written is not an error.
///
/// # Errors
/// If the checkpoint cannot be read, or contains a number that is not finite.
pub fn checked(folder: &Path, cache: Option<&Path>) -> Result<String> {
    let compute = || {
        let config = Config::open(folder)?;
        fingerprint(&SafeTensors::open(folder)?, &config)
    };
    let (Some(cache), Some((key, changed))) = (cache, identify(folder)) else { return compute() };
    let place = cache.join(format!("{}.base", hex(&Sha256::digest(key.as_bytes())[..16])));
    let kept = read_bytes(&place).ok().and_then(|text| serde_json::from_slice::<Kept>(&text).ok());
    if let Some(kept) = kept.filter(|kept| kept.key == key) {
        return Ok(kept.hash);
    }
    let hash = compute()?;
    let settled = SystemTime::now().duration_since(changed).is_ok_and(|age| age > SETTLED);
    if settled && identify(folder).is_some_and(|(after, _)| after == key) {
        // A cache only saves time.
        let _ = std::fs::create_dir_all(cache);
        let _ = serde_json::to_vec(&Kept { key, hash: hash.clone() }).map(|text| write_file(&place, &text));
    }
    Ok(hash)
}

/// Identifies the files that determine the numbers of a checkpoint without reading them: a key, and the last time that one of them changed. `None`
/// if the metadata of one cannot be read.
fn identify(folder: &Path) -> Option<(String, SystemTime)> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).ok()?.map(|entry| Some(entry.ok()?.path())).collect::<Option<_>>()?;
    files.retain(|file| is_weights(file) || file.ends_with("config.json") || file.ends_with("model.safetensors.index.json"));
    files.sort();
    let (mut key, mut last) = ("1".to_string(), SystemTime::UNIX_EPOCH);
    for file in files {
        let (path, facts) = (file.canonicalize().ok()?, std::fs::metadata(&file).ok()?);
        let (identity, changed) = identity(&facts)?;
        key.push_str(&format!("\n{:?} {path:?} {} {identity}", file.file_name()?, facts.len()));
        last = last.max(changed);
    }
    Some((key, last))
}

fn is_weights(file: &Path) -> bool {
    file.extension().is_some_and(|e| e == "safetensors")
}

/// Device, inode, mtime and ctime in ns, and the time of the last change. Programs can set mtime back, but not ctime.
#[cfg(unix)]
fn identity(facts: &Metadata) -> Option<(String, SystemTime)> {
    use std::os::unix::fs::MetadataExt;
    let ns = |seconds: i64, ns: i64| i128::from(seconds) * 1_000_000_000 + i128::from(ns);
    let own: [i128; 4] =
        [facts.dev().into(), facts.ino().into(), ns(facts.mtime(), facts.mtime_nsec()), ns(facts.ctime(), facts.ctime_nsec())];
    let ctime = Duration::new(facts.ctime().try_into().ok()?, facts.ctime_nsec().try_into().ok()?);
    Some((format!("{own:?}"), facts.modified().ok()?.max(SystemTime::UNIX_EPOCH + ctime)))
}

/// The time of the last change, as a text and as such.
#[cfg(not(unix))]
fn identity(facts: &Metadata) -> Option<(String, SystemTime)> {
    let modified = facts.modified().ok();
    Some((format!("{modified:?}"), modified?))
}

/// SHA-256 of `config.json` and the tokenizer's files in `folder`, which a trained model takes over.
///
/// # Errors
/// If one cannot be read.
pub fn side_files(folder: &Path) -> Result<String> {
    let files = std::iter::once("config.json").chain(TOKENIZER_FILES).map(|name| (name, folder.join(name)));
    let lines = files.filter(|(_, file)| is_there(file)).map(|(name, file)| Ok(format!("{name} {}\n", hex(&hash_file(&file)?))));
    Ok(hex(&Sha256::digest(lines.collect::<Result<Vec<String>>>()?.concat())))
}

/// Checks that these files are those whose hash is `before`.
///
/// # Errors
/// If not: the trained model would get the tokenizer or the settings of another.
pub fn check_side_files(folder: &Path, before: &str) -> Result<()> {
    match side_files(folder)? == before {
        true => Ok(()),
        false => Err(Error::file(folder, "config.json and the tokenizer", "were changed during the training: put the old files back")),
    }
}

/// What a training run depends on and the hash of the base does not show, by name.
///
/// # Errors
/// If a weight cannot be read.
pub fn unhashed_settings(model: &DistilBert) -> Result<Vec<(String, Value)>> {
    let config = &model.config;
    let Value::Object(all) = json!(BaseSettings::of(config)) else { return Ok(Vec::new()) };
    let dropouts = json!([config.attention_dropout, config.dropout, config.seq_classif_dropout]);
    let head = frozen_head(model)?.map(|hash| ("head".to_string(), json!(hash)));
    Ok(all.into_iter().chain([("dropouts".to_string(), dropouts)]).chain(head).collect())
}

/// SHA-256 of the weights of the head that do not train; `None` if all do.
///
/// # Errors
/// If one cannot be read.
fn frozen_head(model: &DistilBert) -> Result<Option<String>> {
    let mut hash = None;
    for weight in model.weights().into_iter().filter(|w| in_head(w.name()) && !w.trains()) {
        let hash = hash.get_or_insert_with(Sha256::new);
        hash.update(weight.name());
        weight.value()?.to_host()?.to_f64()?.iter().for_each(|x| hash.update(x.to_le_bytes()));
    }
    Ok(hash.map(|hash| hex(&hash.finalize())))
}

/// SHA-256 of the weights in `folder`, one for each file.
pub fn weights_hash(folder: &Path) -> Result<String> {
    let entries = std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))?;
    let mut files: Vec<PathBuf> = entries.map(|f| Ok(f.map_err(|e| Error::io(folder, e))?.path())).collect::<Result<_>>()?;
    files.retain(|file| is_weights(file));
    files.sort();
    Ok(files.iter().map(|file| Ok(hex(&hash_file(file)?))).collect::<Result<Vec<_>>>()?.join(" "))
}

/// Checks that the adapter in `directory` was trained on the base at `base`, whose hash is `given`, with the settings of `config`. Warns if the
/// adapter has no hash.
///
/// # Errors
/// If it was trained on another base.
pub fn check_same(about: &About, directory: &Path, (base, config): (&Path, &Config), given: &str) -> Result<()> {
    about.check_settings(directory, base, config)?;
    let Some(trained) = &about.base_hash else {
        let (directory, base) = (directory.display(), base.display());
        warning!("{directory}: lowrank.json has no base_hash: whether {base} is the base that it was trained on is not known");
        return Ok(());
    };
    if trained == given {
        return Ok(());
    }
    let short = |hash: &str| hash.chars().take(12).collect::<String>();
    let problem = format!(
        "the adapter was trained on another base, {} (hash {}…), than {} (hash {}…): give that one with --model, or --any-base to use it all the same",
        base_name(directory).unwrap_or_else(|| "a base without a name".to_string()),
        short(trained),
        base.display(),
        short(given)
    );
    Err(Error::file(directory, "lowrank.json", problem))
}

/// The name of the base in an adapter's configuration.
pub fn base_name(directory: &Path) -> Option<String> {
    let text = read_bytes(&directory.join("adapter_config.json")).ok()?;
    let config: serde_json::Value = serde_json::from_slice(&text).ok()?;
    config["base_model_name_or_path"].as_str().map(String::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lowrank::lora::Method;
    use lowrank::nn::LoadOptions;
    use std::fs;

    const ENCODER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../assets/encoder");

    fn files(folder: &Path) -> Vec<PathBuf> {
        fs::read_dir(folder).map(|entries| entries.map(|e| e.unwrap().path()).collect()).unwrap_or_default()
    }

    #[test]
    fn files_beside_the_weights_are_known_again() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["config.json", "vocab.txt"] {
            fs::copy(Path::new(ENCODER).join(name), dir.path().join(name)).unwrap();
        }
        let before = side_files(dir.path()).unwrap();
        check_side_files(dir.path(), &before).unwrap();
        fs::write(dir.path().join("tokenizer_config.json"), "{}").unwrap();
        assert!(check_side_files(dir.path(), &before).is_err_and(|e| e.to_string().contains("were changed during the training")));
    }

    #[test]
    fn the_head_that_does_not_train_has_a_hash() {
        let open = |method: Method, seed| {
            let options = LoadOptions { classes: Some(2), seed, ..LoadOptions::default() };
            let mut model = DistilBert::open_with(Path::new(ENCODER), &options).unwrap().0;
            method.apply(&mut model, 0).unwrap();
            frozen_head(&model).unwrap()
        };
        let head = |pre_classifier| Method::Head { pre_classifier };
        assert_eq!(open(head(true), 1), None);
        assert!(open(head(false), 1).is_some() && open(head(false), 1) != open(head(false), 2));
    }

    #[test]
    fn a_known_base_is_not_read_again_and_a_changed_one_is() {
        let dir = tempfile::tempdir().unwrap();
        let (base, cache) = (dir.path().join("base"), dir.path().join("deep/cache"));
        fs::create_dir(&base).unwrap();
        for name in ["config.json", "model.safetensors"] {
            fs::copy(Path::new(ENCODER).join(name), base.join(name)).unwrap();
        }
        let hash = checked(&base, None).unwrap();
        assert_eq!(checked(&base, Some(&cache)).unwrap(), hash);
        assert_eq!(files(&cache).len(), 0, "files that have just been written may change again");
        std::thread::sleep(SETTLED + Duration::from_millis(100));
        assert_eq!(checked(&base, Some(&cache)).unwrap(), hash);
        let [kept] = &files(&cache)[..] else { panic!("one file") };
        // The cached hash is used without reading the files.
        let planted = fs::read_to_string(kept).unwrap().replace(&hash, "planted");
        fs::write(kept, planted).unwrap();
        assert_eq!(checked(&base, Some(&cache)).unwrap(), "planted");
        for damaged in ["", "{", r#"{"key":"another","hash":"x"}"#] {
            fs::write(kept, damaged).unwrap();
            assert_eq!(checked(&base, Some(&cache)).unwrap(), hash, "{damaged:?}");
        }
        // Other bytes, the same size and time.
        let weights = base.join("model.safetensors");
        let time = fs::metadata(&weights).unwrap().modified().unwrap();
        let mut bytes = fs::read(&weights).unwrap();
        let last = bytes.len() - 4;
        bytes[last] ^= 1;
        fs::write(&weights, bytes).unwrap();
        fs::File::options().write(true).open(&weights).unwrap().set_modified(time).unwrap();
        assert_ne!(checked(&base, Some(&cache)).unwrap(), hash);
        // A cache that cannot be.
        assert_ne!(checked(&base, Some(&weights)).unwrap(), hash);
    }
}
