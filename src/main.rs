//! The program: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    duet::cli::main(std::env::args_os().collect()).into()
}
