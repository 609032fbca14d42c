//! Where models and data are downloaded from and kept, and how a name on the command line becomes a path.

use super::cache::{Repo, is_adapter, is_model};
use lowrank::files::open_stream;
use lowrank::{Error, Result};
use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A file whose size and hash are known before the download.
pub struct Archive {
    /// Address.
    pub url: String,
    /// Local file name.
    pub file: String,
    /// Length in bytes.
    pub size: u64,
    /// SHA-256 in hexadecimal digits.
    pub sha256: String,
}

impl Archive {
    /// The large movie review data set. Maas et al. 2011, <https://ai.stanford.edu/~amaas/data/sentiment/>.
    pub fn imdb() -> Archive {
        Archive {
            url: "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz".into(),
            file: "aclImdb_v1.tar.gz".into(),
            size: 84_125_825,
            sha256: "c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe".into(),
        }
    }
}

/// Servers to download from and folders to download to.
pub struct Hub {
    /// Address of the hub, without a slash at the end.
    pub endpoint: String,
    /// Cache of models, `~/.cache/huggingface/hub`.
    pub cache: PathBuf,
    /// Access token. Only the endpoint's server gets it.
    pub token: Option<String>,
    /// Folder for other downloads, `~/.cache/lowrank`.
    pub home: PathBuf,
    /// The IMDB reviews.
    pub imdb: Archive,
    /// The program curl.
    pub curl: OsString,
    /// Pause before the first retry; each further pause is twice as long.
    pub pause: Duration,
}

/// Most bytes of a file with a token.
const TOKEN: u64 = 1 << 16;

impl Hub {
    /// Settings from the environment: `HF_ENDPOINT`, `HF_HOME`, `HF_HUB_CACHE`, `HF_TOKEN`, `HF_TOKEN_PATH`, `LOWRANK_HOME` and
    /// `LOWRANK_IMDB_URL`, with the defaults of `huggingface_hub`.
    ///
    /// # Errors
    /// If no home directory is known and the variables do not name all folders.
    pub fn from_env() -> Result<Hub> {
        Hub::from_variables(|name| std::env::var_os(name))
    }

    /// [`Hub::from_env`], with `get` in place of the environment. An empty variable counts as not set.
    ///
    /// # Errors
    /// As [`Hub::from_env`].
    pub fn from_variables(get: impl Fn(&str) -> Option<OsString>) -> Result<Hub> {
        let get = |name: &str| get(name).filter(|value| !value.is_empty());
        let text =
            |name: &str| get(name).and_then(|value| value.into_string().ok()).map(|s| s.trim().to_string()).filter(|s| !s.is_empty());
        let user = if cfg!(windows) { get("USERPROFILE").or_else(|| get("HOME")) } else { get("HOME") };
        let user = user.map(PathBuf::from);
        let folder = |name: &str| {
            let path = PathBuf::from(get(name)?);
            // A shell does not expand the tilde of a quoted variable.
            Some(path.strip_prefix("~").ok().zip(user.as_ref()).map(|(rest, user)| user.join(rest)).unwrap_or(path))
        };
        let dot_cache = user.as_ref().map(|user| user.join(".cache"));
        let xdg = folder("XDG_CACHE_HOME");
        let hf_home = folder("HF_HOME").or_else(|| Some(xdg.as_ref().or(dot_cache.as_ref())?.join("huggingface")));
        let hf_home = |file: &str| Some(hf_home.as_ref()?.join(file));
        let local = || xdg.clone().or_else(|| folder("LOCALAPPDATA")).or_else(|| dot_cache.clone());
        let none = || Error::invalid("no home directory is known; set HF_HOME and LOWRANK_HOME to the folders to download to");
        let token_file = || {
            let path = folder("HF_TOKEN_PATH").or_else(|| hf_home("token"))?;
            let mut token = String::new();
            open_stream(&path).ok()?.take(TOKEN).read_to_string(&mut token).ok()?;
            Some(token.trim().to_string()).filter(|token| !token.is_empty())
        };
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        let mut imdb = Archive::imdb();
        imdb.url = text("LOWRANK_IMDB_URL").unwrap_or(imdb.url);
        Ok(Hub {
            endpoint: endpoint.trim_end_matches('/').into(),
            cache: folder("HF_HUB_CACHE").or_else(|| hf_home("hub")).ok_or_else(none)?,
            token: text("HF_TOKEN").or_else(token_file),
            home: folder("LOWRANK_HOME").or_else(|| Some(local()?.join("lowrank"))).ok_or_else(none)?,
            imdb,
            curl: "curl".into(),
            pause: Duration::from_secs(1),
        })
    }

    /// The folder of the model `name`: `name` itself if that is a folder, else its snapshot in the cache.
    ///
    /// # Errors
    /// If it is neither; the message says how to fetch it.
    pub fn model_path(&self, name: &Path) -> Result<PathBuf> {
        if name.is_dir() {
            return Ok(name.to_path_buf());
        }
        let Some(wanted) = hub_name(name) else { return Err(no_model(name)) };
        self.snapshot(wanted, is_model)
    }

    /// The folder of the adapter `name`: `name` itself if that exists or cannot be a name on the hub, else its snapshot in the cache.
    ///
    /// # Errors
    /// If it is not in the cache; the message says how to fetch it.
    pub fn adapter_path(&self, name: &Path) -> Result<PathBuf> {
        match hub_name(name).filter(|wanted| wanted.name.contains('/') && !name.exists()) {
            Some(wanted) => self.snapshot(wanted, is_adapter),
            None => Ok(name.to_path_buf()),
        }
    }

    fn snapshot(&self, wanted: HubName, is_whole: fn(&Path) -> bool) -> Result<PathBuf> {
        let (text, cache) = (wanted.text, self.cache.display());
        let snapshot = Repo::new(&self.cache, wanted.name).snapshot(wanted.revision).filter(|folder| is_whole(folder));
        snapshot.ok_or_else(|| Error::invalid(format!("{text}: no such folder, and not in {cache}; run: lowrank fetch {text}")))
    }

    /// The path of the data `name`: for `imdb` the fetched archive, unless a file of that name exists; any other name is a path already.
    ///
    /// # Errors
    /// If the archive was not fetched; the message says how to do that.
    pub fn data_path(&self, name: &Path) -> Result<PathBuf> {
        if name != Path::new("imdb") || name.exists() {
            return Ok(name.to_path_buf());
        }
        let archive = self.home.join(&self.imdb.file);
        if archive.is_file() {
            return Ok(archive);
        }
        Err(Error::invalid(format!("imdb: nothing here is called so, and {} is not there; run: lowrank fetch imdb", archive.display())))
    }
}

pub(super) fn no_model(name: &Path) -> Error {
    let wanted = "expected the folder of a checkpoint, or a model's name on the hub such as distilbert-base-uncased";
    Error::invalid(format!("{}: no such folder; {wanted}", name.display()))
}

/// The name of a model or an adapter on the hub.
#[derive(Clone, Copy)]
pub(super) struct HubName<'a> {
    /// `name` or `owner/name`.
    pub name: &'a str,
    /// A branch, a tag or a commit.
    pub revision: &'a str,
    /// Both, as they were given.
    pub text: &'a str,
}

/// `name`, if it is possible on the hub: `name` or `owner/name`, and perhaps `@revision`.
pub(super) fn hub_name(name: &Path) -> Option<HubName<'_>> {
    let text = name.to_str()?;
    let (name, revision) = text.split_once('@').unwrap_or((text, "main"));
    let allowed = |part: &str| {
        let plain = part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        // The cache replaces the slash after the owner by two dashes.
        plain && !part.starts_with(['.', '-']) && !part.is_empty() && !part.contains("--") && !part.contains("..")
    };
    let possible = name.split('/').count() <= 2 && name.len() <= 96 && name.split('/').all(allowed);
    (possible && revision.len() <= 96 && allowed(revision)).then_some(HubName { name, revision, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub(variables: &[(&str, &str)]) -> Result<Hub> {
        let user = if cfg!(windows) { ("USERPROFILE", "user") } else { ("HOME", "user") };
        let all = [variables, &[user]].concat();
        Hub::from_variables(|name| all.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into()))
    }

    #[test]
    fn settings_are_those_of_huggingface_hub() {
        let plain = hub(&[("HF_HOME", ""), ("HF_TOKEN", " ")]).unwrap();
        assert_eq!(plain.endpoint, "https://huggingface.co");
        assert_eq!((plain.cache, plain.home), ("user/.cache/huggingface/hub".into(), "user/.cache/lowrank".into()));
        assert!(plain.token.is_none() && plain.imdb.url == Archive::imdb().url);
        let xdg = hub(&[("XDG_CACHE_HOME", "xdg")]).unwrap();
        assert_eq!((xdg.cache, xdg.home), ("xdg/huggingface/hub".into(), "xdg/lowrank".into()));
        let moved = hub(&[("XDG_CACHE_HOME", "xdg"), ("HF_HOME", "~/hf"), ("LOWRANK_HOME", "low"), ("HF_ENDPOINT", "http://m/")]).unwrap();
        assert_eq!((moved.cache, moved.home, &*moved.endpoint), ("user/hf/hub".into(), "low".into(), "http://m"));
        let mirror = hub(&[("HF_HOME", "hf"), ("HF_HUB_CACHE", "cache"), ("LOWRANK_IMDB_URL", "http://m/a"), ("HF_TOKEN", "t\n")]).unwrap();
        assert_eq!((mirror.cache, &*mirror.imdb.url, mirror.token.as_deref()), ("cache".into(), "http://m/a", Some("t")));
        assert_eq!(mirror.imdb.size, Archive::imdb().size);
        let nowhere = Hub::from_variables(|_| None).err().unwrap().to_string();
        assert!(nowhere.contains("set HF_HOME and LOWRANK_HOME"), "{nowhere}");
    }

    #[test]
    fn a_token_may_be_in_a_file() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), "from-file\n").unwrap();
        let home = dir.path().to_str().unwrap();
        let token = |variables: &[(&str, &str)]| hub(variables).unwrap().token;
        assert_eq!(token(&[("HF_HOME", home)]).as_deref(), Some("from-file"));
        assert_eq!(token(&[("HF_HOME", home), ("HF_TOKEN", "t")]).as_deref(), Some("t"));
        assert_eq!(token(&[("HF_HOME", home), ("HF_TOKEN_PATH", "nowhere")]), None);
    }
}
