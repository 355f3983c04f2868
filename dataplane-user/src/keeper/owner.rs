//! Who listens on which port, from `/proc`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

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
///
/// # Errors
/// They cannot be read to the end. Who does not see everybody who listens must not take it for nobody.
pub fn listening() -> io::Result<Vec<Listening>> {
    let mut found = Vec::new();
    for (table, may_be_missing) in [("/proc/self/net/tcp", false), ("/proc/self/net/tcp6", true)] {
        let table = match std::fs::File::open(table) {
            // A kernel without IPv6.
            Err(error) if may_be_missing && error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        for line in BufReader::new(table).lines().skip(1) {
            match parse_line(&line?) {
                Some(listening) => found.push(listening),
                None => break,
            }
        }
    }
    Ok(found)
}

/// The processes that hold sockets, by inode: each process' descriptors are read once, however many sockets are asked for.
pub fn owners(inodes: &BTreeSet<u64>) -> BTreeMap<u64, Owner> {
    let mut found = BTreeMap::new();
    if inodes.is_empty() {
        return found;
    }
    for pid in processes() {
        for inode in sockets_of(pid).filter(|inode| inodes.contains(inode)) {
            found.entry(inode).or_insert_with(|| Owner { process: Some((pid, name(pid))) });
        }
        if found.len() == inodes.len() {
            break;
        }
    }
    found
}

/// The process that holds a socket.
pub fn owner(inode: u64) -> Owner {
    owners(&BTreeSet::from([inode])).remove(&inode).unwrap_or(Owner { process: None })
}

fn processes() -> impl Iterator<Item = u32> {
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn sockets_of(pid: u32) -> impl Iterator<Item = u64> {
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    descriptors.filter_map(|fd| {
        let target = std::fs::read_link(fd.path()).ok()?;
        target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    })
}

/// A process gives itself its name, and it is shown on terminals.
fn name(pid: u32) -> String {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let shown = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    name.trim_end().chars().map(shown).collect()
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

/// The kernel prints addresses as 32-bit words in the machine's own byte order. A socket of IPv6 that listens at an IPv4 address
/// (`::ffff:10.0.0.1`, as Java's do) has that one's connections.
fn parse_address(text: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(text.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for (at, chunk) in bytes.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(at * 8)?);
            }
            Some(Ipv6Addr::from(bytes).to_canonical())
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
            let found = listening().unwrap().into_iter().find(|listening| listening.local == local).unwrap();
            assert_eq!(owner(found.inode).process.map(|(pid, _)| pid), Some(std::process::id()));
        }
    }

    #[test]
    fn an_ipv4_address_of_an_ipv6_socket_is_that_address() {
        let Ok(socket) = TcpListener::bind("[::ffff:127.0.0.1]:0") else { return };
        let port = socket.local_addr().unwrap().port();
        let local = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        assert!(listening().unwrap().iter().any(|listening| listening.local == local));
    }

    #[test]
    fn owners_are_found_together() {
        let sockets: Vec<TcpListener> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports: Vec<u16> = sockets.iter().map(|socket| socket.local_addr().unwrap().port()).collect();
        let all = listening().unwrap().into_iter();
        let inodes: BTreeSet<u64> =
            all.filter(|one| ports.contains(&one.local.port())).map(|one| one.inode).collect();
        let owners = owners(&inodes);
        assert_eq!(owners.len(), 3);
        let ours = |owner: &Owner| owner.process.as_ref().map(|(pid, _)| *pid) == Some(std::process::id());
        assert!(owners.values().all(ours), "{owners:?}");
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
