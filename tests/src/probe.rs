//! What the kernel says: counters of pinned maps, and what came past the filter.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::space::{Space, command};

/// The pins of an instance.
pub fn pins(instance: &str) -> PathBuf {
    PathBuf::from("/sys/fs/bpf/sallyport").join(instance)
}

/// Mounts the BPF file system where nobody has: what the unit does on a real machine.
pub fn need_bpffs() {
    let mounts = fs::read_to_string("/proc/mounts").expect("mounts");
    if !mounts.lines().any(|line| line.split(' ').nth(1) == Some("/sys/fs/bpf")) {
        command("mount", &["-t", "bpf", "bpf", "/sys/fs/bpf"]);
    }
}

/// Whether an instance has any pin.
pub fn has_pins(instance: &str) -> bool {
    pins(instance).exists()
}

/// A pinned map's path, wherever below the instance's directory it is.
fn pinned(instance: &str, name: &str) -> PathBuf {
    let mut dirs = vec![pins(instance)];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())).flatten()
        {
            let path = entry.path();
            if path.is_dir() {
                dirs.push(path);
            } else if entry.file_name().to_string_lossy() == name {
                return path;
            }
        }
    }
    panic!("no pin {name} below {}", pins(instance).display())
}

/// A kernel reason's counter, summed over processors.
pub fn reason(instance: &str, number: u32) -> u64 {
    let path = pinned(instance, "HERE").display().to_string();
    let text = command("bpftool", &["-j", "map", "lookup", "pinned", &path, "key", "0", "0", "0", "0"]);
    let value: Value = serde_json::from_str(&text).expect("bpftool's JSON");
    // Eight bytes of something else, then eight a reason.
    let place = 8 * (number as usize + 1);
    let cpus = value["values"].as_array().expect("values");
    cpus.iter().map(|cpu| count(&cpu["value"].as_array().expect("bytes")[place..place + 8])).sum()
}

/// Bytes in hexadecimal, lowest first, as a number.
fn count(bytes: &[Value]) -> u64 {
    bytes.iter().rev().fold(0, |sum, byte| {
        let text = byte.as_str().expect("a byte").trim_start_matches("0x");
        sum << 8 | u64::from_str_radix(text, 16).expect("a byte")
    })
}

/// Counts packets from one source behind XDP, before anything else in the node's stack sees them.
#[derive(Debug)]
pub struct Passed<'a>(&'a Space);

impl<'a> Passed<'a> {
    /// Installs the counter; `source` is an address or a prefix, behind which more of nftables' matches may stand.
    pub fn count(space: &'a Space, source: &str) -> Self {
        Self::count_each(space, &[source])
    }

    /// The same with a counter for each source.
    pub fn count_each(space: &'a Space, sources: &[&str]) -> Self {
        let rule = |source: &&str| {
            let family = if source.contains(':') { "ip6" } else { "ip" };
            format!("{family} saddr {source} counter\n")
        };
        let rules: String = sources.iter().map(rule).collect();
        space.run("nft", &[&format!(
            "table inet probe {{\nchain pre {{\ntype filter hook prerouting priority -400\n{rules}}}\n}}\n"
        )]);
        Self(space)
    }

    /// How many came past the filter, of all sources.
    pub fn packets(&self) -> u64 {
        self.each().into_iter().sum()
    }

    /// How many came past the filter, of each source in the order they were named.
    pub fn each(&self) -> Vec<u64> {
        let text = self.0.run("nft", &["list", "table", "inet", "probe"]);
        let words: Vec<&str> = text.split_whitespace().collect();
        let counts = words.windows(2).filter(|pair| pair[0] == "packets");
        counts.map(|pair| pair[1].parse().expect("nft's counter")).collect()
    }
}

impl Drop for Passed<'_> {
    fn drop(&mut self) {
        let _ = self.0.try_run("nft", &["delete", "table", "inet", "probe"]);
    }
}
