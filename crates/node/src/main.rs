//! The binary `tahini`.

fn main() -> std::process::ExitCode {
    tahini_node::cli::main()
}
