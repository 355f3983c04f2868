//! Who runs where, how much, and what it cost.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::thread::CpuSet;

use crate::Result;

/// Pins this process, and every thread it starts from now on, to one core.
pub(crate) fn pin_this_process(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

/// A command that runs pinned to core 0.
pub(crate) fn pinned_command(program: &Path) -> std::process::Command {
    let mut command = std::process::Command::new("taskset");
    command.args(["-c", "0"]).arg(program);
    command
}

/// A process and all its descendants that run now.
pub(crate) fn family(root: u32) -> Result<Vec<u32>> {
    let mut found = vec![root];
    let mut at = 0;
    while let Some(pid) = found.get(at) {
        for task in tasks(*pid)? {
            if let Ok(children) = std::fs::read_to_string(task.join("children")) {
                found.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
            }
        }
        at += 1;
    }
    Ok(found)
}

fn tasks(pid: u32) -> Result<Vec<PathBuf>> {
    let dir = format!("/proc/{pid}/task");
    let entries = std::fs::read_dir(&dir).map_err(|error| format!("{dir}: {error}"))?;
    Ok(entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect())
}

/// CPU time of all threads of the processes, to the nanosecond (`/proc/PID/stat` counts in hundredths of a second).
pub(crate) fn spent(processes: &[u32]) -> Result<Duration> {
    let mut sum = 0;
    for pid in processes {
        for task in tasks(*pid)? {
            let text = std::fs::read_to_string(task.join("schedstat"))?;
            let nanos = text.split_whitespace().next().ok_or("schedstat is empty")?;
            sum += nanos.parse::<u64>()?;
        }
    }
    Ok(Duration::from_nanos(sum))
}

/// Memory of the processes in bytes, what they share counted once (`Pss` of `smaps_rollup`, Linux 4.14). What the kernel
/// keeps for their sockets is not in it.
pub(crate) fn memory(processes: &[u32]) -> Result<u64> {
    let mut sum = 0;
    for pid in processes {
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let line =
            text.lines().find_map(|line| line.strip_prefix("Pss:")).ok_or("smaps_rollup without Pss")?;
        sum += line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024;
    }
    Ok(sum)
}

/// A bound on the proxies' CPU time, where the machine lets us set one.
pub(crate) struct Quota {
    share: f64,
    state: std::result::Result<PathBuf, String>,
}

const PERIOD_US: f64 = 10_000.0;

impl Quota {
    /// A control group of its own: version 1 where its `cpu` controller is mounted, else version 2.
    pub(crate) fn new(name: &str, share: f64) -> Self {
        let limit = (PERIOD_US * share).round();
        let attempts = [
            (
                "/sys/fs/cgroup/cpu",
                vec![("cpu.cfs_period_us", format!("{PERIOD_US}")), ("cpu.cfs_quota_us", format!("{limit}"))],
            ),
            ("/sys/fs/cgroup", vec![("cpu.max", format!("{limit} {PERIOD_US}"))]),
        ];
        let mut reason = String::new();
        for (root, settings) in attempts {
            let dir = Path::new(root).join(name);
            let made = std::fs::create_dir_all(&dir).and_then(|()| {
                settings.iter().try_for_each(|(file, text)| std::fs::write(dir.join(file), text))
            });
            match made {
                Ok(()) => return Self { share, state: Ok(dir) },
                Err(error) => reason = format!("{}: {error}", dir.display()),
            }
        }
        Self { share, state: Err(reason) }
    }

    /// For the reader of the result.
    pub(crate) fn description(&self) -> String {
        match &self.state {
            Ok(_) => format!("quota: {:.0} % of one core for the proxy", self.share * 100.0),
            Err(reason) => format!("no CPU quota ({reason}): the load generator may be the bottleneck"),
        }
    }

    /// The share of a core that holds, when one does.
    pub(crate) fn share(&self) -> Option<f64> {
        self.state.is_ok().then_some(self.share)
    }

    /// Puts processes under the quota.
    pub(crate) fn hold(&self, processes: &[u32]) -> Result<()> {
        let Ok(dir) = &self.state else { return Ok(()) };
        for pid in processes {
            std::fs::write(dir.join("cgroup.procs"), pid.to_string())
                .map_err(|error| format!("{} for process {pid}: {error}", dir.display()))?;
        }
        Ok(())
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        let Ok(dir) = &self.state else { return };
        // A group goes only when it is empty; what is in it returns to the root.
        if let (Some(root), Ok(pids)) = (dir.parent(), std::fs::read_to_string(dir.join("cgroup.procs"))) {
            for pid in pids.split_whitespace() {
                let _ = std::fs::write(root.join("cgroup.procs"), pid);
            }
        }
        let _ = std::fs::remove_dir(dir);
    }
}
