//! Network namespaces, and threads and processes inside them.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::Command;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Every name begins with this, so that what a killed run left is found and removed.
pub const PREFIX: &str = "spt-";

/// A network namespace; it goes with this value.
#[derive(Debug)]
pub struct Space {
    name: String,
    file: File,
}

impl Space {
    /// Makes `spt-NAME`, empty but for a loopback that is up. What a former run left under the name is removed first.
    pub fn new(name: &str) -> Self {
        let name = format!("{PREFIX}{name}");
        let _ = Command::new("ip").args(["netns", "del", &name]).output();
        command("ip", &["netns", "add", &name]);
        let file = File::open(format!("/run/netns/{name}")).expect("namespace");
        let space = Self { name, file };
        space.ip("link set lo up");
        space
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `ip -n NAME ...`.
    pub fn ip(&self, arguments: &str) {
        let mut all = vec!["-n", &self.name];
        all.extend(arguments.split_whitespace());
        command("ip", &all);
    }

    /// Moves the calling thread, and so every thread and process it starts from now on, into the namespace.
    pub fn enter(&self) {
        move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))
            .expect("enter a namespace");
    }

    /// Does `work` inside, on a thread of its own.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let result = std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    self.enter();
                    work()
                })
                .join()
        });
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Runs a command inside and gives its standard output; panics with its complaint when it fails.
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        self.inside(|| command(program, arguments))
    }

    /// Runs a command inside: success, standard output, standard error.
    pub fn try_run(&self, program: &str, arguments: &[&str]) -> (bool, String, String) {
        let output = self.inside(|| Command::new(program).args(arguments).output()).expect(program);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.success(), text(&output.stdout), text(&output.stderr))
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

/// Runs a command and gives its standard output; panics with its complaint when it fails.
pub fn command(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error} (./test installs what the tests need)"));
    assert!(
        output.status.success(),
        "{program} {}: {}{}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr),
        String::from_utf8_lossy(&output.stdout)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
