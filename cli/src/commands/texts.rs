//! Texts from arguments, a file, or standard input.

use super::notes::note;
use clap::Args;
use lowrank::{Error, Result};
use std::io::{BufRead, BufReader, IsTerminal, Stdin};
use std::path::PathBuf;

/// Where the texts come from.
#[derive(Args)]
pub struct TextArgs {
    /// Texts [default: the lines of --file or of standard input]
    pub texts: Vec<String>,
    /// File with one text a line; predict also reads a table (.csv, .tsv, .json, .jsonl, also with .gz) with a column of texts
    #[arg(long, group = "table")]
    pub file: Option<PathBuf>,
    /// Encoding of the file, such as windows-1252 [default: UTF-8, or UTF-16 if the file has its mark]
    #[arg(long, value_name = "NAME", requires = "table")]
    pub encoding: Option<String>,
}

impl TextArgs {
    /// Refuses texts and a file together.
    pub fn check(&self, command: &str) -> Result<()> {
        match self.file.is_some() && !self.texts.is_empty() {
            true => Err(Error::invalid(format!("{command}: give texts or --file, not both"))),
            false => Ok(()),
        }
    }
}

/// The lines of standard input.
pub struct InputLines {
    input: BufReader<Stdin>,
    number: usize,
}

impl InputLines {
    /// Tells a user at a terminal that texts are expected.
    pub fn new() -> InputLines {
        if std::io::stdin().is_terminal() {
            note!("waiting for texts, one a line; Ctrl-D ends");
        }
        InputLines { input: BufReader::new(std::io::stdin()), number: 0 }
    }

    /// Whether the next line has arrived already.
    pub fn is_ready(&self) -> bool {
        self.input.buffer().contains(&b'\n')
    }
}

impl Iterator for InputLines {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Result<String>> {
        let mut line = Vec::new();
        self.number += 1;
        match self.input.read_until(b'\n', &mut line) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(e) => return Some(Err(Error::io("standard input", e))),
        }
        let problem = "not UTF-8; convert it, or give a file with --encoding";
        let bad = |_| Error::file("standard input", format!("line {}", self.number), problem);
        Some(String::from_utf8(line).map_err(bad).map(|line| line.trim_end_matches(['\n', '\r']).to_string()))
    }
}
