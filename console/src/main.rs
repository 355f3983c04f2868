//! `sallyport`: the console and the command line.

fn main() -> std::process::ExitCode {
    console::cli::main()
}
