//! `sallyport-node`: the keeper (`run`), its worker, and two commands that look after what they leave behind.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use sallyport_node::handover::operator::{DEADLINE, LONGEST, Part};
use sallyport_node::handover::succession::Succession;
use sallyport_node::keeper::directory::Directory;
use sallyport_node::keeper::interfaces;
use sallyport_node::keeper::kernel::{
    Config, Interfaces, Kernel, KernelError, Linux, Off, detach_instance, lock_instance,
};
use sallyport_node::keeper::memory::{self, parse_size};
use sallyport_node::keeper::settings::{MAX_THREADS, MetricsToken, Settings, parse_token};
use sallyport_node::keeper::status::{self, Status};
use sallyport_node::keeper::token;
use sallyport_node::{handover, keeper, operate, worker};
use zeroize::Zeroizing;

/// Sallyport's node: accepts, decrypts, checks, re-encrypts.
#[derive(Debug, Parser)]
#[command(name = "sallyport-node", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the node until SIGTERM; SIGHUP is `upgrade` to the program now installed under the same path.
    Run(Box<RunArgs>),
    /// Started by `run`.
    #[command(hide = true)]
    Worker {
        /// The descriptor of the channel to the keeper.
        #[arg(long)]
        control_fd: i32,
    },
    /// Started by `run`.
    #[command(hide = true)]
    Hold,
    /// Lets a new release take over from the one that runs: no connection is refused, none is reset.
    Upgrade {
        #[command(flatten)]
        places: Places,
        /// The new program; without it the one this command is.
        #[arg(long)]
        binary: Option<PathBuf>,
        /// Replace the keeper or the worker alone; without it both.
        #[arg(long, value_enum)]
        only: Option<Part>,
        /// How long connections of the former worker may go on, seconds; new ones are the new worker's at once.
        #[arg(long, default_value_t = DEADLINE, value_parser = clap::value_parser!(u32).range(..=i64::from(LONGEST)))]
        deadline: u32,
    },
    /// Says what the node does at present.
    Status {
        #[command(flatten)]
        places: Places,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Removes every program, link, table and pin that a node left in the kernel, and says which.
    Detach {
        #[command(flatten)]
        places: Places,
        /// Keeps several nodes on one machine apart.
        #[arg(long, default_value = "default")]
        instance: String,
        /// Even while a node runs.
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, Args)]
struct Places {
    /// Where the node keeps its identity, keys and last snapshot (in `node/` below).
    #[arg(long)]
    state_dir: Option<PathBuf>,
    /// Where `keeper.sock` and `status.json` are.
    #[arg(long)]
    run_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct RunArgs {
    #[command(flatten)]
    places: Places,
    /// A file with the enrolment token, readable by its owner only.
    #[arg(long, conflicts_with = "token_fd")]
    token_file: Option<PathBuf>,
    /// A descriptor to read the enrolment token from.
    #[arg(long)]
    token_fd: Option<i32>,
    /// Filter packets here (repeatable); without it on the interfaces of the default routes.
    #[arg(long)]
    interface: Vec<String>,
    /// Plain sockets and no packet filter in the kernel, even as root.
    #[arg(long)]
    no_kernel: bool,
    /// Keeps several nodes on one machine apart.
    #[arg(long, default_value = "default")]
    instance: String,
    /// Metrics and health.
    #[arg(long, default_value = "127.0.0.1:9464")]
    metrics_listen: SocketAddr,
    /// A file with the token that `/metrics` asks for, readable by its owner only; needed where it is not on loopback.
    #[arg(long)]
    metrics_token_file: Option<PathBuf>,
    /// Worker threads; without it one per core.
    #[arg(long)]
    threads: Option<usize>,
    /// What the node may have of the machine's memory, such as 512M: near it, overload is shed; without it what its control
    /// group may have.
    #[arg(long, value_parser = parse_size)]
    memory_limit: Option<u64>,
    /// `key=value` for node selectors (repeatable).
    #[arg(long, value_parser = label)]
    label: Vec<(String, String)>,
    /// As whom the worker runs when the node is started as root.
    #[arg(long, default_value = "nobody")]
    user: String,
    /// Write the access log here instead of to standard output.
    #[arg(long)]
    access_log: Option<PathBuf>,
    /// Go on where this process's former release left: the descriptor of what it wrote.
    #[arg(long, hide = true)]
    handover_fd: Option<i32>,
    /// Only say whether that would work.
    #[arg(long, hide = true, requires = "handover_fd")]
    handover_try: bool,
    /// Stop in an orderly way when this process, which started it, has ended.
    #[arg(long, hide = true)]
    parent: Option<u32>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    log_to_stderr();
    let done = match cli.command {
        Command::Run(args) => run(*args),
        Command::Worker { control_fd } => work(control_fd),
        Command::Hold => hold(),
        Command::Upgrade { places, binary, only, deadline } => upgrade(&places, binary, (deadline, only)),
        Command::Status { places, json } => print_status(&places, json),
        Command::Detach { places, instance, force } => detach(&places, &instance, force),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            // Whoever runs the command reads this line; the log is for whoever reads logs.
            let _ = writeln!(std::io::stderr(), "sallyport-node: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    // As below: `sallyport up` starts the node from a descriptor.
    let _ = rustix::thread::set_name(c"sallyport-node");
    let succession = match (args.handover_fd, args.handover_try) {
        (Some(channel), true) => {
            let judge = |succession: &Succession| {
                settings(args, Some(succession)).map(drop).map_err(|error| format!("{error:#}"))
            };
            keeper::upgrade::trial::answer(handover::inherited(channel)?, judge)?;
            return Ok(ExitCode::SUCCESS);
        }
        (number, _) => number.map(keeper::succeed::read).transpose()?,
    };
    let settings = settings(args, succession.as_ref())?;
    keeper::run::run(settings, succession, open_kernel)?;
    Ok(ExitCode::SUCCESS)
}

fn work(control_fd: i32) -> anyhow::Result<ExitCode> {
    // For `ps`: the keeper started this from a descriptor, so the name would be a number.
    let _ = rustix::thread::set_name(c"sallyport-work");
    worker::control::run(handover::inherited(control_fd)?)?;
    Ok(ExitCode::SUCCESS)
}

fn hold() -> anyhow::Result<ExitCode> {
    let _ = rustix::thread::set_name(c"sallyport-hold");
    sallyport_node::hold::run(handover::inherited(0)?)?;
    Ok(ExitCode::SUCCESS)
}

/// The kernel's help, or the reason why there is none: the node works either way, but not in the place of another that runs.
fn open_kernel(settings: &Settings, lock: Option<OwnedFd>) -> Result<Box<dyn Kernel>, KernelError> {
    if !settings.kernel {
        return Ok(Box::new(Off::new("off by --no-kernel")));
    }
    let mut config = Config::new(&settings.instance, settings.interfaces.clone());
    if settings.interfaces.is_empty() {
        config.interfaces = Interfaces::Found(interfaces::of_default_routes);
    }
    match Linux::inherit(config, lock) {
        Ok(kernel) => Ok(Box::new(kernel)),
        Err(error @ KernelError::InUse { .. }) => Err(error),
        Err(error) => Ok(Box::new(Off::from(error))),
    }
}

/// With a succession nothing is read again: the keeper may not have the right to any more.
fn settings(args: RunArgs, succession: Option<&Succession>) -> anyhow::Result<Settings> {
    let state_dir = state_dir(&args.places)?;
    let token = match (&args.token_file, args.token_fd) {
        _ if succession.is_some() => None,
        // A unit always names its file; once the node is enrolled an operator may remove it.
        (Some(file), _) => file.try_exists()?.then(|| token::read_file(file)).transpose()?,
        (None, Some(number)) => Some(token::read(handover::inherited(number)?.into())?),
        (None, None) => None,
    };
    let metrics_token = match (succession, args.metrics_token_file.as_deref()) {
        (Some(succession), _) => succession.secrets.metrics.clone().map(Zeroizing::new),
        (None, file) => file.map(token::read_file).transpose()?,
    };
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let sealing_key =
        std::env::var_os("CREDENTIALS_DIRECTORY").map(|path| Path::new(&path).join("sealing.key"));
    Ok(Settings {
        run_dir: run_dir(&args.places, &state_dir),
        state_dir,
        token: token.as_deref().map(|text| parse_token(text)).transpose()?,
        token_file: args.token_file,
        interfaces: args.interface,
        kernel: !args.no_kernel,
        instance: args.instance,
        metrics: args.metrics_listen,
        metrics_token: metrics_token.as_deref().map(|text| MetricsToken::parse(text)).transpose()?,
        threads: args.threads.unwrap_or(cores).clamp(1, MAX_THREADS),
        memory_limit: args.memory_limit.or_else(memory::of_own_group),
        labels: BTreeMap::from_iter(args.label),
        user: args.user,
        access_log: args.access_log,
        parent: args.parent,
        sealing_key,
    })
}

fn state_dir(places: &Places) -> anyhow::Result<PathBuf> {
    if let Some(path) = &places.state_dir {
        return Ok(path.clone());
    }
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/sallyport"));
    }
    let base = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/state"));
    Ok(base
        .or_else(home)
        .context("there is neither XDG_STATE_HOME nor HOME; say where with --state-dir")?
        .join("sallyport"))
}

fn run_dir(places: &Places, state_dir: &Path) -> PathBuf {
    match &places.run_dir {
        Some(path) => path.clone(),
        None if rustix::process::geteuid().is_root() => PathBuf::from("/run/sallyport"),
        None => state_dir.join("run"),
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a label is key=value")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn upgrade(
    places: &Places,
    binary: Option<PathBuf>,
    (deadline, only): (u32, Option<Part>),
) -> anyhow::Result<ExitCode> {
    let program = match binary {
        Some(program) => program,
        None => std::env::current_exe().context("finding this program")?,
    };
    let run_dir = run_dir(places, &state_dir(places)?);
    let mut out = std::io::stdout().lock();
    operate::upgrade(&run_dir, &program, (deadline.saturating_mul(1000), only), |line| {
        // Progress that nobody reads is not worth failing for.
        let _ = writeln!(out, "{line}");
    })?;
    Ok(ExitCode::SUCCESS)
}

fn print_status(places: &Places, json: bool) -> anyhow::Result<ExitCode> {
    let path = run_dir(places, &state_dir(places)?).join(status::FILE);
    let Ok(text) = std::fs::read_to_string(&path) else {
        anyhow::bail!("no node runs here ({} is not there)", path.display());
    };
    let state: Status =
        serde_json::from_str(&text).with_context(|| format!("{} cannot be read", path.display()))?;
    let age = Duration::from_millis(u64::try_from(status::now_ms() - state.at_ms).unwrap_or(0));
    let stale = age > status::STALE;
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{text}")?;
    } else {
        write!(out, "{}", state.words())?;
    }
    if stale {
        writeln!(std::io::stderr(), "sallyport-node: {}", state.silence(age))?;
    }
    Ok(if stale { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn detach(places: &Places, instance: &str, force: bool) -> anyhow::Result<ExitCode> {
    let run_dir = run_dir(places, &state_dir(places)?);
    let run = Directory::open(&run_dir, 0o755).with_context(|| format!("opening {}", run_dir.display()))?;
    let root = Path::new(Config::PIN_ROOT);
    // Both are held until the end, so that no node starts meanwhile.
    let (lock, instance_lock) = (run.lock_alone("keeper.lock")?, lock_instance(root, instance));
    let runs = match (&lock, &instance_lock) {
        (Err(holder), _) => Some(format!("a node runs on {}{holder}", run_dir.display())),
        (Ok(_), Err(KernelError::InUse { holder, .. })) => {
            Some(format!("a node runs as the instance {instance}{holder}"))
        }
        (Ok(_), Err(_) | Ok(_)) => None,
    };
    if let (Some(runs), false) = (&runs, force) {
        anyhow::bail!("{runs}; stop it (SIGTERM detaches), or use --force");
    }
    let removed = detach_instance(root, instance)?;
    let mut out = std::io::stdout().lock();
    for pin in &removed {
        writeln!(out, "removed: {pin}")?;
    }
    let place = root.join(instance);
    match removed.len() {
        0 => writeln!(out, "nothing was there: {} is empty or does not exist", place.display())?,
        _ => writeln!(
            out,
            "nothing is left of the instance {instance} in the kernel; nodes make no routes or rules of `ip`"
        )?,
    }
    if runs.is_some() {
        writeln!(
            std::io::stderr(),
            "sallyport-node: the node that runs has no packet filter and no steering now; restart it, or it accepts no connections that were steered"
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("SALLYPORT_LOG");
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        builder.init();
    } else {
        builder.json().init();
    }
}
