//! The program, run in a folder of a test, with a cache of its own. Arguments are separated by spaces.

use std::path::Path;
use std::process::{Command, Output};

fn run(folder: &Path, arguments: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lowrank"));
    command.current_dir(folder).env("XDG_CACHE_HOME", folder.join("cache")).args(arguments.split_whitespace()).output().unwrap()
}

/// Standard output and standard error of a command that succeeds.
pub fn ok(folder: &Path, arguments: &str) -> (String, String) {
    let out = run(folder, arguments);
    let [said, noted] = [out.stdout, out.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(out.status.success(), "{arguments}: {noted}");
    (said, noted)
}

/// The command fails with an error that contains `message`.
pub fn refused(folder: &Path, arguments: &str, message: &str) {
    let out = run(folder, arguments);
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(matches!(out.status.code(), Some(1 | 2)) && said.contains(message), "{arguments} should say {message}: {said}");
}
