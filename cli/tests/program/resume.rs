//! Runs that are stopped in their middle and go on.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The program in `folder`. `arguments` are separated by spaces.
pub fn program(folder: &Path, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lowrank"));
    command.current_dir(folder).env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR")).args(arguments.split_whitespace());
    command
}

/// Starts a run and waits until its state is saved.
pub fn begin(folder: &Path, arguments: &str, out: &str) -> Child {
    let child = program(folder, arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(120);
    while !folder.join(out).join("checkpoint.safetensors").exists() {
        assert!(Instant::now() < until, "no state was saved");
        std::thread::sleep(Duration::from_millis(2));
    }
    child
}

/// Runs a training that writes to `out`, stops it a few times with `signal`, and lets it go on to its end.
pub fn stop_and_resume(folder: &Path, arguments: &str, out: &str, signal: &str) {
    let mut stops = 0;
    loop {
        let resume = if stops > 0 { "--resume" } else { "" };
        let mut child = begin(folder, &format!("{arguments} {resume}"), out);
        std::thread::sleep(Duration::from_millis(if resume.is_empty() { 30 } else { 300 }));
        // After a few signals the run continues to its end.
        if stops < 4 {
            Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        }
        let code = child.wait().unwrap().code();
        if code == Some(0) {
            break;
        }
        // A run that is stopped while it starts saves nothing new.
        assert!(if signal == "-KILL" { code.is_none() } else { code == Some(130) || (code.is_none() && stops > 0) }, "{code:?}");
        assert!(!folder.join(out).join("adapter_model.safetensors").exists());
        let again = program(folder, arguments).output().unwrap();
        let said = String::from_utf8_lossy(&again.stderr);
        assert!(again.status.code() == Some(1) && said.contains("--resume") && said.contains("--restart"), "{said}");
        stops += 1;
    }
    assert!(stops > 0, "the run was over before it could be stopped");
    assert!(!folder.join(out).join("checkpoint.safetensors").exists());
}

/// What a run gave: the adapter, and the lines of each step and epoch.
pub fn result(folder: &Path) -> [Vec<u8>; 2] {
    ["adapter_model.safetensors", "metrics.jsonl"].map(|name| fs::read(folder.join(name)).unwrap())
}
