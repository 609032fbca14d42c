//! `lowrank completions` and `lowrank man`: a completion script and manual pages.

use clap::{Args, Command};
use clap_complete::Shell;
use lowrank::{Error, Result};
use std::io::Write;

/// Arguments of `completions`.
#[derive(Args)]
pub struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    /// Runs the command.
    pub(super) fn run(self, mut program: Command) -> Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut program, "lowrank", &mut script);
        print(&script)
    }
}

/// Arguments of `man`.
#[derive(Args)]
pub struct Man {
    /// A command, such as train [default: the program as a whole]
    command: Option<String>,
}

impl Man {
    /// Runs the command.
    pub(super) fn run(self, mut program: Command) -> Result<()> {
        // Gives the subcommands their full names.
        program.build();
        let command = match &self.command {
            None => &program,
            Some(name) => program.find_subcommand(name).ok_or_else(|| {
                let names: Vec<&str> = program.get_subcommands().map(Command::get_name).collect();
                Error::invalid(format!("man: there is no command {name:?}; there are {}", names.join(", ")))
            })?,
        };
        let mut page = Vec::new();
        clap_mangen::Man::new(command.clone()).render(&mut page).map_err(|e| Error::io("standard output", e))?;
        print(&page)
    }
}

/// Writes to standard output; a closed pipe becomes an error, not a panic.
fn print(bytes: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|e| Error::io("standard output", e))
}
