//! The `mpesa-fw` program.

fn main() -> std::process::ExitCode {
    mpesa_fw::cli::main()
}
