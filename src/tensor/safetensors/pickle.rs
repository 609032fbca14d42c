//! Recognises weights that PyTorch saved as a pickle, which this program does not read.

use crate::Error;
use std::path::Path;

/// The names under which PyTorch's libraries save pickles, and the indices of such files.
const PICKLES: [&str; 5] =
    ["adapter_model.bin", "adapter_model.pt", "pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model.pt"];

/// An error if `directory` contains weights as a pickle. It says how to convert them.
pub(super) fn pickle(directory: &Path) -> Option<Error> {
    let path = PICKLES.iter().map(|name| directory.join(name)).find(|path| path.exists())?;
    let library = if path.file_name()?.to_str()?.starts_with("adapter") { "peft" } else { "transformers" };
    let problem = format!(
        "is a pickle, which can run any program and is not read: load it in {library} and write it again with \
         save_pretrained(…, safe_serialization=True)"
    );
    Some(Error::file(path, "format", problem))
}
