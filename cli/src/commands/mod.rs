//! The command line: argument parsing, progress, printing. Each command has a file.

mod adapted;
mod answer;
mod base;
mod bench;
mod bench_epoch;
#[cfg(feature = "cuda")]
mod bench_gpu;
mod best;
mod check;
mod combine;
mod common;
mod cut_args;
mod data;
mod demo;
mod device;
mod eval;
mod explain;
#[cfg(feature = "onnx")]
mod export;
mod fetch;
mod figures;
mod files;
mod golden;
mod head;
mod held_out;
mod in_words;
mod merge;
mod method;
mod notes;
mod output;
mod output_file;
mod page_parts;
mod pages;
mod pair_column;
mod parts;
mod predict;
mod predict_table;
mod progress;
mod ranks;
mod recipe_args;
mod run;
mod run_page;
mod scored;
#[cfg(feature = "serve")]
mod serve;
mod shard;
mod signals;
mod start;
mod study;
mod study_watch;
mod summary;
mod suspects;
mod task;
mod task_page;
mod tested;
mod texts;
mod tokenize;
mod train;
mod training_args;

use crate::lost;
use clap::{CommandFactory, Parser, Subcommand};
use common::{Outcome, is_closed};
use lowrank::{Error, Result};
use notes::warning;
use std::num::NonZero;
use std::process::ExitCode;

/// Fine-tunes DistilBERT and BERT with LoRA, on its own tensor engine.
#[derive(Parser)]
#[command(name = "lowrank", version, about, max_term_width = 110, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Number of threads [default: all cores]. Results do not depend on it
    #[arg(long, global = true, value_name = "N")]
    threads: Option<usize>,
    /// Print no progress, only results, warnings and errors
    #[arg(long, global = true)]
    quiet: bool,
    /// Instruction set to compute with: portable, avx2, avx512 or avx512bf16 [default: LOWRANK_SIMD, or the fastest of this processor]
    #[arg(long, global = true, value_name = "PATH")]
    simd: Option<String>,
}

#[derive(Subcommand)]
enum Command {
    /// Run a small version of the study on a bundled encoder and bundled reviews; results are in ./lowrank-demo
    Demo(demo::Demo),
    /// Fine-tune a checkpoint with LoRA and write a PEFT adapter
    Train(Box<train::Train>),
    /// Check labelled texts before training on them
    Data(data::Data),
    /// Measure an adapter on labelled texts
    Eval(Box<eval::Eval>),
    /// Classify texts from arguments, a file, or standard input; or the rows of a table, into a table
    Predict(Box<predict::Predict>),
    /// Open a page to try a model and to see how it thinks, and an API that clients of text-embeddings-inference speak
    #[cfg(feature = "serve")]
    Serve(Box<serve::Serve>),
    /// Add a LoRA adapter to its base, and write a checkpoint that transformers reads
    Merge(merge::Merge),
    /// Write a model, with its adapter merged, for other programs
    #[cfg(feature = "onnx")]
    Export(export::Export),
    /// Combine several LoRA adapters of one base into one
    Combine(combine::Combine),
    /// Train the study's seven configurations on the same reviews, and print its table
    Study(Box<study::StudyArgs>),
    /// Download models and adapters from the Hugging Face hub, or the IMDB reviews, for use by name
    Fetch(fetch::Fetch),
    /// Time inference with each method, an epoch of training, or a GPU
    Bench(bench::Bench),
    /// Print the token ids of each text on a line
    Tokenize(tokenize::Tokenize),
    /// Write a randomly initialised checkpoint
    Init(files::InitArgs),
    /// Show the contents of a checkpoint or an adapter
    Inspect(files::Inspect),
    /// Check the gradient of each operation against finite differences
    Gradcheck(check::Gradcheck),
    /// Show one training step as a ledger or as a page: what is computed, saved, and skipped
    Explain(explain::Explain),
    /// Compare the engine with reference values computed by another program
    Compare(check::Compare),
    /// Print a completion script for a shell
    Completions(pages::Completions),
    /// Print the manual page of the program or of a command
    Man(pages::Man),
}

/// Largest value of `--threads` for each core. More threads than cores only wait for each other, and hundreds of them for minutes.
const THREADS_PER_CORE: usize = 8;

/// Parses the arguments and runs the command. Exit codes: 0 done, 1 an error or a failed check, 2 wrong usage, 130 stopped by Ctrl-C, SIGTERM or
/// SIGHUP after the state was saved.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Err(e) if e.use_stderr() => Err(Error::invalid(e.render().to_string().trim_end())),
        parsed => Ok(parsed.unwrap_or_else(|e| e.exit())),
    };
    ranks::start();
    let arguments = match arguments {
        Ok(arguments) => arguments,
        // The message repeats arguments, so it is printed like all others.
        Err(e) => {
            warning!("{e}");
            let _ = ranks::end::<()>(Err(e), |_| {});
            return ExitCode::from(2);
        }
    };
    lost::watch();
    let report = |e: &Error| {
        if !is_closed(e) {
            warning!("lowrank: {e}");
        }
    };
    match ranks::end(run(arguments).and_then(|outcome| lost::check().map(|()| outcome)), report) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Failed) => ExitCode::FAILURE,
        Ok(Outcome::Interrupted) => ExitCode::from(130),
        Err(e) if is_closed(&e) && lost::check().is_ok() => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn run(arguments: Arguments) -> Result<Outcome> {
    lowrank::tensor::simd::choice()?;
    if let Some(name) = &arguments.simd {
        lowrank::tensor::simd::choose(name).map_err(|e| Error::invalid(format!("--simd {e}")))?;
    }
    if arguments.quiet {
        notes::be_quiet();
    }
    let variable = std::env::var("RAYON_NUM_THREADS").ok().and_then(|n| n.parse().ok()).filter(|n| *n > 0);
    if let Some(n) = arguments.threads.or(variable) {
        let most = THREADS_PER_CORE * std::thread::available_parallelism().map_or(1, NonZero::get);
        if !(1..=most).contains(&n) {
            return Err(Error::invalid(format!(
                "--threads (or RAYON_NUM_THREADS) must be at least 1 and at most {most}, {THREADS_PER_CORE} for each core; got {n}"
            )));
        }
        lowrank::tensor::rows::use_threads(n)?;
    }
    if ranks::are_several() && !matches!(arguments.command, Command::Train(_) | Command::Eval(_) | Command::Predict(_)) {
        return Err(Error::invalid("ranks of MPI share only train, eval and predict: run this command without the launcher"));
    }
    ranks::check_program()?;
    let done = match arguments.command {
        Command::Demo(c) => return c.run(),
        #[cfg(feature = "serve")]
        Command::Serve(c) => return c.run(),
        Command::Train(c) => return c.run(),
        Command::Predict(c) => return c.run(),
        Command::Data(c) => return c.run(),
        Command::Study(c) => return c.run(),
        Command::Gradcheck(c) => return c.run(),
        Command::Compare(c) => return c.run(),
        Command::Eval(c) => c.run(),
        Command::Merge(c) => c.run(),
        #[cfg(feature = "onnx")]
        Command::Export(c) => c.run(),
        Command::Combine(c) => c.run(),
        Command::Bench(c) => c.run(),
        Command::Fetch(c) => c.run(),
        Command::Tokenize(c) => c.run(),
        Command::Init(c) => c.run(),
        Command::Inspect(c) => c.run(),
        Command::Explain(c) => c.run(),
        Command::Completions(c) => c.run(Arguments::command()),
        Command::Man(c) => c.run(Arguments::command()),
    };
    done.map(|()| Outcome::Done)
}
