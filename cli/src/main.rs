//! The `lowrank` program; see [`lowrank_cli::commands`].

fn main() -> std::process::ExitCode {
    lowrank_cli::commands::main()
}
