//! The `lowrank` program; see [`lowrank::cli`].

fn main() -> std::process::ExitCode {
    lowrank::cli::main()
}
