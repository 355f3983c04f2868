//! `sallyport`: the console and the command line.

fn main() -> std::process::ExitCode {
    // For `ps`, and for whoever asks what holds a port: `up` starts the console from a descriptor, so its name would
    // be a number. A name that cannot be set changes nothing else.
    let _ = rustix::thread::set_name(c"sallyport");
    console::cli::main()
}
