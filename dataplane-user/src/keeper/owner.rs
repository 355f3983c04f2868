//! Who listens on which port, from `/proc`.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

/// A listening TCP socket of this network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listening {
    /// Where.
    pub local: SocketAddr,
    /// Its inode, which `/proc/PID/fd` names.
    pub inode: u64,
}

/// A process, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The process id and name; absent when its descriptors may not be read (that needs `CAP_SYS_PTRACE`).
    pub process: Option<(u32, String)>,
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.process {
            Some((pid, name)) => write!(f, "{name} (process {pid})"),
            None => f.write_str("another process (unknown owner)"),
        }
    }
}

/// Every listening TCP socket. The kernel lists them before all connections (`Documentation/networking/proc_net_tcp.rst`), of
/// which there may be very many: those are not read.
pub fn listening() -> Vec<Listening> {
    let mut found = Vec::new();
    for table in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
        let Ok(table) = std::fs::File::open(table) else { continue };
        let lines = BufReader::new(table).lines().map_while(Result::ok);
        found.extend(lines.skip(1).map_while(|line| parse_line(&line)));
    }
    found
}

/// The process that holds a socket.
pub fn owner(inode: u64) -> Owner {
    Owner { process: processes().find_map(|pid| holds(pid, inode).then(|| (pid, name(pid)))) }
}

fn processes() -> impl Iterator<Item = u32> {
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn holds(pid: u32, inode: u64) -> bool {
    let wanted = format!("socket:[{inode}]");
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    descriptors
        .into_iter()
        .any(|fd| std::fs::read_link(fd.path()).is_ok_and(|target| target == Path::new(&wanted)))
}

fn name(pid: u32) -> String {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim_end().to_owned()
}

/// A line of `/proc/net/tcp` or `tcp6`, when it is a listening socket (state `0A`).
fn parse_line(line: &str) -> Option<Listening> {
    let mut fields = line.split_ascii_whitespace();
    let local = fields.nth(1)?;
    let state = fields.nth(1)?;
    let inode = fields.nth(5)?.parse().ok()?;
    if state != "0A" {
        return None;
    }
    let (address, port) = local.split_once(':')?;
    let local = SocketAddr::new(parse_address(address)?, u16::from_str_radix(port, 16).ok()?);
    Some(Listening { local, inode })
}

/// The kernel prints addresses as 32-bit words in the machine's own byte order.
fn parse_address(text: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(text.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for (at, chunk) in bytes.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(at * 8)?);
            }
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn finds_its_own_sockets_in_both_families() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(socket) = TcpListener::bind(address) else { continue };
            let local = socket.local_addr().unwrap();
            let found = listening().into_iter().find(|listening| listening.local == local).unwrap();
            assert_eq!(owner(found.inode).process.map(|(pid, _)| pid), Some(std::process::id()));
        }
    }

    #[test]
    fn only_listening_lines_count() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0";
        if cfg!(target_endian = "little") {
            let expected = Listening { local: "127.0.0.1:8080".parse().unwrap(), inode: 4711 };
            assert_eq!(parse_line(line), Some(expected));
        }
        assert_eq!(parse_line(&line.replace(" 0A ", " 01 ")), None);
        assert_eq!(parse_line("  sl  local_address rem_address   st tx_queue rx_queue"), None);
    }
}
