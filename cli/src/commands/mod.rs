//! The command line: argument parsing, progress, printing; one file a command.

mod adapted;
mod base;
mod bench;
#[cfg(feature = "cuda")]
mod bench_gpu;
mod check;
mod combine;
mod common;
mod demo;
mod device;
mod eval;
mod explain;
mod fetch;
mod files;
mod golden;

mod merge;
mod method;
mod notes;
mod output;
mod pages;
mod parts;
mod predict;
mod progress;
mod run;
mod signals;
mod study;
mod tokenize;
mod train;

use clap::{Parser, Subcommand};
use lowrank::{Error, Result};
use notes::warning;
use std::process::ExitCode;

/// Fine-tunes DistilBERT with LoRA on a tensor engine of its own.
#[derive(Parser)]
#[command(name = "lowrank", version, about, max_term_width = 110, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Threads to compute with; all cores if not given. Results do not depend on it
    #[arg(long, global = true, value_name = "N")]
    threads: Option<usize>,
    /// Say nothing of how a run goes on: results, warnings and errors alone
    #[arg(long, global = true)]
    quiet: bool,
}

#[derive(Subcommand)]
enum Command {
    /// The study in small, on an encoder and reviews that the program brings along: results in ./lowrank-demo
    Demo,
    /// Fine-tune a checkpoint with LoRA and write a PEFT adapter
    Train(Box<train::Train>),
    /// Measure an adapter on labelled reviews
    Eval(Box<eval::Eval>),
    /// Classify texts: arguments, a file, or standard input
    Predict(predict::Predict),
    /// Add a LoRA adapter to its base: a checkpoint that transformers reads
    Merge(merge::Merge),
    /// Join several LoRA adapters of one base into one
    Combine(combine::Combine),
    /// The study's seven configurations on the same reviews: trains each, and prints its table
    Study(Box<study::StudyArgs>),
    /// Download models of the Hugging Face hub and the reviews of IMDB, to be used by name
    Fetch(fetch::Fetch),
    /// Time inference with each method beside the base
    Bench(bench::Bench),
    /// Print the token ids of texts, a line each
    Tokenize(tokenize::Tokenize),
    /// Write a randomly initialised checkpoint
    Init(files::Init),
    /// Show what a checkpoint or an adapter holds
    Inspect(files::Inspect),
    /// Check the gradient of every operation against finite differences
    Gradcheck(check::Gradcheck),
    /// Show one training step as a ledger: computed, saved, spared
    Explain(explain::Explain),
    /// Hold the engine against reference values computed elsewhere
    Compare(check::Compare),
    /// Print a script that completes this program's arguments in a shell
    Completions(pages::Completions),
    /// Print the manual page of this program, or of one of its commands
    Man(pages::Man),
}

/// Most threads that can be asked for.
const MOST_THREADS: usize = 1024;

/// How a command ended.
enum Outcome {
    Done,
    /// A check found a difference.
    Failed,
    /// Ctrl-C or another signal to end; the state was saved.
    Interrupted,
}

/// Parses the arguments and runs. Exit codes: 0 done, 1 an error or a failed check, 2 wrong usage, 130 stopped by Ctrl-C, SIGTERM or SIGHUP after saving.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Failed) => ExitCode::FAILURE,
        Ok(Outcome::Interrupted) => ExitCode::from(130),
        // A reader that has seen enough (`| head`) is no error.
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(e) => {
            warning!("lowrank: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<Outcome> {
    lowrank::tensor::simd::check_choice()?;
    if arguments.quiet {
        notes::be_quiet();
    }
    if let Some(n) = arguments.threads {
        // Each takes memory before it works.
        if !(1..=MOST_THREADS).contains(&n) {
            return Err(Error::invalid(format!("--threads must be at least 1 and at most {MOST_THREADS}, got {n}")));
        }
        lowrank::tensor::rows::use_threads(n)?;
    }
    match arguments.command {
        Command::Demo => demo::run(),
        Command::Train(c) => c.run(),
        Command::Eval(c) => c.run(),
        Command::Predict(c) => c.run(),
        Command::Merge(c) => c.run(),
        Command::Combine(c) => c.run(),
        Command::Bench(c) => c.run(),
        Command::Study(c) => c.run(),
        Command::Fetch(c) => c.run(),
        Command::Tokenize(c) => c.run(),
        Command::Init(c) => c.run(),
        Command::Inspect(c) => c.run(),
        Command::Gradcheck(c) => c.run(),
        Command::Explain(c) => c.run(),
        Command::Compare(c) => c.run(),
        Command::Completions(c) => c.run(),
        Command::Man(c) => c.run(),
    }
}
