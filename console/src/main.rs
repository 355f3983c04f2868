//! `sallyport`: the console and its command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    console::cli::main()
}
