//! The demo's network namespaces, the wires between them, and work inside one of them.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;

use rustix::thread::LinkNameSpaceType;

use super::DemoError;
use super::names::{CLIENT, FIRST, LINK, SECOND, Wire};

/// What everything that a demo makes is called, before its process's id.
pub(super) const PREFIX: &str = "sallyport-demo-";

/// The namespaces of this demo, removed on drop with the wires in them.
pub(super) struct Namespaces {
    run: u32,
}

impl Namespaces {
    /// Makes them, with their wires.
    pub(super) fn make() -> Result<Self, DemoError> {
        remove_leftovers();
        let this = Self { run: std::process::id() };
        let node = this.of_node();
        for name in [this.of_node(), this.name(CLIENT), this.name(FIRST), this.name(SECOND)] {
            ip(&["netns", "add", &name])?;
            ip(&["-n", &name, "link", "set", "lo", "up"])?;
        }
        connect(LINK, None, &node)?;
        for wire in [CLIENT, FIRST, SECOND] {
            connect(wire, Some(&node), &this.name(wire))?;
        }
        for address in CLIENT.unwelcome() {
            address_add(Some(&this.name(CLIENT)), CLIENT.far, address)?;
        }
        Ok(this)
    }

    /// The node's namespace.
    pub(super) fn of_node(&self) -> String {
        format!("{PREFIX}{}-node", self.run)
    }

    /// The namespace at a wire's far end.
    pub(super) fn name(&self, wire: Wire) -> String {
        match wire.net {
            0 => self.of_node(),
            1 => format!("{PREFIX}{}-client", self.run),
            net => format!("{PREFIX}{}-origin{}", self.run, net - 1),
        }
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in [self.of_node(), self.name(CLIENT), self.name(FIRST), self.name(SECOND)] {
            drop(ip(&["netns", "del", &name]));
        }
        // Gone with the node's namespace unless that one was never made.
        drop(ip(&["link", "del", LINK.near]));
    }
}

/// A wire between `near` (the machine itself when nothing) and `far`, with an IPv4 and an IPv6 address at each end.
fn connect(wire: Wire, near: Option<&str>, far: &str) -> Result<(), DemoError> {
    let mut add = near.map_or_else(Vec::new, |near| vec!["-n", near]);
    add.extend(["link", "add", wire.near, "type", "veth", "peer", "name", wire.far, "netns", far]);
    ip(&add)?;
    for (namespace, interface, addresses) in
        [(near, wire.near, wire.near_addresses()), (Some(far), wire.far, wire.far_addresses())]
    {
        for address in addresses {
            address_add(namespace, interface, address)?;
        }
        let mut up = namespace.map_or_else(Vec::new, |name| vec!["-n", name]);
        up.extend(["link", "set", interface, "up"]);
        ip(&up)?;
    }
    Ok(())
}

fn address_add(namespace: Option<&str>, interface: &str, address: IpAddr) -> Result<(), DemoError> {
    let text = format!("{address}/{}", if address.is_ipv4() { 24 } else { 64 });
    let mut add = namespace.map_or_else(Vec::new, |name| vec!["-n", name]);
    add.extend(["address", "add", &text, "dev", interface]);
    if address.is_ipv6() {
        // Without it the address is unusable until duplicate address detection is over.
        add.push("nodad");
    }
    ip(&add)
}

fn ip(arguments: &[&str]) -> Result<(), DemoError> {
    let output =
        Command::new("ip").args(arguments).output().map_err(DemoError::io("run ip (package iproute2)"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(DemoError::Command { command: format!("ip {}", arguments.join(" ")), said })
}

/// Removes what a demo left that was killed outright.
fn remove_leftovers() {
    let Ok(entries) = std::fs::read_dir("/run/netns") else { return };
    let mut found = false;
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        let pid = rest.split('-').next().unwrap_or_default();
        if !Path::new("/proc").join(pid).exists() {
            found = true;
            drop(ip(&["netns", "del", &name]));
        }
    }
    if found {
        drop(ip(&["link", "del", LINK.near]));
    }
}

/// Runs `work` on a thread of its own, inside a network namespace where one is given.
pub(super) fn in_namespace(
    namespace: Option<&str>,
    work: impl FnOnce() + Send + 'static,
) -> Result<(), DemoError> {
    let file = match namespace {
        Some(name) => {
            let path = Path::new("/run/netns").join(name);
            Some(std::fs::File::open(&path).map_err(DemoError::io(format!("open {}", path.display())))?)
        }
        None => None,
    };
    std::thread::spawn(move || {
        if let Some(file) = file
            && rustix::thread::move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .is_err()
        {
            return;
        }
        work();
    });
    Ok(())
}
