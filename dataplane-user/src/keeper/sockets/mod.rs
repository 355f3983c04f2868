//! Opens, keeps and closes listening sockets.
//!
//! Steered, there is one socket per worker thread and family on a loopback port that nobody needs to know; `sk_lookup`
//! gives it every listener's connections, and opening a listener is only a check that the port is free and the address
//! is ours. Otherwise each listener's address has one `SO_REUSEPORT` socket per thread.
//!
//! A socket is bound when a snapshot is prepared and listens when the worker has made the snapshot live, so that no
//! connection meets a worker that does not know its listener. The kernel gives what waits in the queue of a closed
//! `SO_REUSEPORT` socket to nobody: a removed listener's queue is emptied by the worker before it closes, and what
//! arrives between the two is reset. Steered sockets do not have this gap, for they are never closed.

mod left_out;
mod place;
mod strangers;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use model::listen::{Place, Port};
use model::name::Name;
use model::report::{LeftOut, ListenerReport};
use model::snapshot::{Listener, Snapshot};
use socket2::{Socket, Type};

pub use self::left_out::Busy;
pub use self::place::{CannotOpen, PlaceError};
use self::place::{Machine, addresses, bind, bind_error, check_local, no_ipv6};
use super::owner;

use crate::handover::message::SocketInfo;
use crate::handover::succession::{Fd, Listening as Left};
use crate::keeper::settings::MAX_THREADS;

/// Longer queues are cut by `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Every listening socket of this node, and which places are open.
#[derive(Debug)]
pub struct Sockets {
    steered: bool,
    threads: usize,
    next: u64,
    held: BTreeMap<u64, Held>,
    open: BTreeSet<Place>,
    /// Sockets of these processes are ours: workers that are on their way out.
    pub friends: BTreeSet<u32>,
}

/// A socket and what it is for.
#[derive(Debug)]
pub struct Held {
    /// What the worker is told.
    pub info: SocketInfo,
    /// The socket; the worker has a duplicate.
    pub socket: Socket,
}

/// What a snapshot changes, bound and not yet listening.
#[derive(Debug, Default)]
pub struct Prepared {
    /// Places that open.
    pub opening: Vec<Place>,
    /// Their sockets; none when steered.
    pub bound: Vec<Held>,
    /// Places that close.
    pub closing: Vec<Place>,
    /// Places of unchanged listeners that could not be opened, and why.
    pub problems: BTreeMap<Name, PlaceError>,
}

impl Sockets {
    /// No sockets yet.
    pub fn new(steered: bool, threads: usize) -> Self {
        let (held, open, friends) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        Self { steered, threads, next: 1, held, open, friends }
    }

    /// Whether `sk_lookup` steers to these sockets.
    pub fn steered(&self) -> bool {
        self.steered
    }

    /// Worker threads these sockets are for.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// All sockets.
    pub fn held(&self) -> impl Iterator<Item = &Held> {
        self.held.values()
    }

    /// Whether there is a socket of this id.
    pub fn holds(&self, id: u64) -> bool {
        self.held.contains_key(&id)
    }

    /// Where connections are accepted.
    pub fn open(&self) -> &BTreeSet<Place> {
        &self.open
    }

    /// Opens the sockets that `sk_lookup` steers to, one per thread and family; does nothing when there are some.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn open_steered(&mut self) -> io::Result<()> {
        if !self.steered || !self.held.is_empty() {
            return Ok(());
        }
        for thread in 0..self.threads {
            for (v6, address) in
                [(false, IpAddr::from(Ipv4Addr::LOCALHOST)), (true, Ipv6Addr::LOCALHOST.into())]
            {
                let socket = match bind(SocketAddr::new(address, 0), false) {
                    Err(error) if v6 && no_ipv6(&error) => continue,
                    other => other?,
                };
                socket.listen(BACKLOG)?;
                let info = SocketInfo { id: self.number(), thread, v6, place: None };
                self.held.insert(info.id, Held { info, socket });
            }
        }
        Ok(())
    }

    /// The IPv4 and IPv6 sockets of a thread that `sk_lookup` steers to; without IPv6 the IPv4 one twice.
    pub fn steered_of(&self, thread: usize) -> Option<(&Socket, &Socket)> {
        let of = |v6| self.held.values().find(|held| held.info.thread == thread && held.info.v6 == v6);
        let v4 = &of(false)?.socket;
        Some((v4, of(true).map_or(v4, |held| &held.socket)))
    }

    /// Binds what `wanted` needs and this node does not have.
    ///
    /// # Errors
    /// The first listener that is new or changed since `current` and cannot be opened. Others' problems are part of
    /// the answer.
    pub fn prepare(
        &mut self,
        wanted: &[&Listener],
        current: Option<&Snapshot>,
    ) -> Result<Prepared, CannotOpen> {
        let mut prepared = Prepared::default();
        let all: BTreeSet<Place> = wanted.iter().copied().flat_map(Listener::places).collect();
        prepared.closing = self.open.difference(&all).copied().collect();
        let opens_range = all.difference(&self.open).any(|place| place.bound().is_none());
        let machine = Machine::read(opens_range);
        for listener in wanted.iter().copied() {
            let unchanged =
                current.is_some_and(|current| current.listeners.iter().any(|old| same_place(old, listener)));
            for place in listener.places() {
                if self.open.contains(&place) || prepared.opening.contains(&place) {
                    continue;
                }
                let bound = self.bind_place(place, listener.take_over, &machine);
                match bound.map_err(|problem| machine.with_all_that_lack(problem, listener.places())) {
                    Ok(bound) => {
                        prepared.opening.push(place);
                        prepared.bound.extend(bound);
                    }
                    Err(problem) if unchanged => {
                        drop(prepared.problems.insert(listener.name.clone(), problem))
                    }
                    Err(source) => return Err(CannotOpen { listener: listener.name.clone(), source }),
                }
            }
        }
        Ok(prepared)
    }

    /// Opens what can be opened of a stored snapshot's listeners; the rest stays a problem of its listener.
    pub fn prepare_what_opens(&mut self, stored: &Snapshot, wanted: &[&Listener]) -> Prepared {
        // Compared with itself no listener has changed, so nothing is refused.
        self.prepare(wanted, Some(stored)).unwrap_or_default()
    }

    /// Lets the bound sockets listen and counts their places as open; the answer is what the worker is to be given.
    ///
    /// # Errors
    /// What the kernel said; nothing has changed then.
    pub fn activate(&mut self, prepared: &mut Prepared) -> io::Result<Vec<u64>> {
        for held in &prepared.bound {
            held.socket.listen(BACKLOG)?;
        }
        self.open.extend(prepared.opening.iter().copied());
        let bound = std::mem::take(&mut prepared.bound);
        let ids = bound.iter().map(|held| held.info.id).collect();
        self.held.extend(bound.into_iter().map(|held| (held.info.id, held)));
        Ok(ids)
    }

    /// Forgets places; the answer is the sockets the worker is to close, which are closed here already.
    pub fn close(&mut self, places: &[Place]) -> Vec<u64> {
        self.open.retain(|place| !places.contains(place));
        let gone = |held: &Held| {
            held.info.place.and_then(Place::of_bound).is_some_and(|place| places.contains(&place))
        };
        let ids: Vec<u64> = self.held.values().filter(|held| gone(held)).map(|held| held.info.id).collect();
        self.held.retain(|_, held| !gone(held));
        ids
    }

    /// Opens the socket for metrics and health.
    ///
    /// # Errors
    /// See [`PlaceError`].
    pub fn open_metrics(&self, address: SocketAddr) -> Result<std::net::TcpListener, PlaceError> {
        let place = (Some(address.ip()).filter(|ip| !ip.is_unspecified()), address.port());
        let busy = owner::listening().map_err(PlaceError::Listening)?;
        if let Some(owner) = self.stranger(place, &busy) {
            return Err(PlaceError::Busy { port: address.port(), owner, steered: false });
        }
        // Shared, because a worker that is on its way out may still have one.
        let socket = bind(address, true).map_err(|error| bind_error(address, error))?;
        socket.listen(BACKLOG).map_err(|error| bind_error(address, error))?;
        Ok(socket.into())
    }

    /// Takes back what a live worker held while this keeper's predecessor was dead.
    ///
    /// # Errors
    /// A descriptor that is not a listening TCP socket at the place the worker says.
    pub fn take_back(&mut self, info: SocketInfo, descriptor: OwnedFd) -> io::Result<()> {
        let socket = Socket::from(descriptor);
        let local = socket.local_addr()?.as_socket();
        let expected = match (info.place, local) {
            (_, None) => false,
            (None, Some(local)) => local.ip().is_loopback() && local.is_ipv6() == info.v6,
            (Some((address, port)), Some(local)) => {
                let family = local.is_ipv6() == info.v6;
                let ip = address.map_or(local.ip().is_unspecified(), |address| address == local.ip());
                family && ip && local.port() == port
            }
        };
        let listening = rustix::net::sockopt::socket_acceptconn(socket.as_fd())?;
        // The numbers are a worker's word.
        let numbered = info.thread < MAX_THREADS && info.id < u64::MAX / 2;
        if !expected
            || !numbered
            || !listening
            || socket.r#type()? != Type::STREAM
            || info.place.is_some() == self.steered
        {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "not the listening socket it is said to be",
            ));
        }
        self.next = self.next.max(info.id.saturating_add(1));
        self.threads = self.threads.max(info.thread + 1);
        self.open.extend(info.place.and_then(Place::of_bound));
        self.held.insert(info.id, Held { info, socket });
        Ok(())
    }

    /// All of it for the next release; `leave` gives each socket's number.
    pub fn listening<'a>(&'a self, mut leave: impl FnMut(BorrowedFd<'a>) -> Fd) -> Left {
        let held = self.held.values().map(|held| (held.info.clone(), leave(held.socket.as_fd()))).collect();
        let (steered, threads, next) = (self.steered, self.threads, self.next);
        let open = self.open.iter().filter_map(Place::bound).collect();
        let ranges = self.open.iter().filter(|place| place.bound().is_none()).copied().collect();
        Left { steered, threads, next, held, open, ranges }
    }

    /// Goes on where the release before left, its sockets being taken back.
    pub fn go_on(&mut self, listening: &Left) {
        self.next = self.next.max(listening.next);
        if self.steered && listening.steered {
            self.open.extend(listening.open.iter().copied().filter_map(Place::of_bound));
            self.open.extend(listening.ranges.iter().copied());
        }
    }

    /// A snapshot's listeners as the console sees them.
    pub fn report(
        &self,
        snapshot: &Snapshot,
        problems: &BTreeMap<Name, String>,
        busy: &Busy,
    ) -> Vec<ListenerReport> {
        let mode = if self.steered { "steered" } else { "socket" };
        let report = |listener: &Listener| {
            let open: Vec<Place> = listener.places().filter(|place| self.open.contains(place)).collect();
            // Of several places each that others listen on is told once.
            let left_out: BTreeSet<LeftOut> =
                open.iter().flat_map(|place| busy.left_out_of(*place)).collect();
            ListenerReport {
                listener: listener.name.clone(),
                mode: mode.to_owned(),
                addresses: open.iter().filter_map(Place::bound).flat_map(addresses).collect(),
                ranges: open.iter().filter(|place| place.bound().is_none()).copied().collect(),
                left_out: left_out.into_iter().collect(),
                connections: 0,
                problem: problems.get(&listener.name).cloned(),
            }
        };
        snapshot.listeners.iter().map(report).collect()
    }

    fn bind_place(
        &mut self,
        place: Place,
        take_over: bool,
        machine: &Machine,
    ) -> Result<Vec<Held>, PlaceError> {
        let Some(bound) = place.bound() else {
            return self.open_range(place, take_over, machine).map(|()| Vec::new());
        };
        if let Some(owner) = self.stranger(bound, machine.listening()?) {
            let port = bound.1;
            match (self.steered, take_over) {
                (true, true) => {}
                (false, true) => return Err(PlaceError::CannotTakeOver { port, owner }),
                (steered, false) => return Err(PlaceError::Busy { port, owner, steered }),
            }
        }
        if self.steered {
            return bound.0.map_or(Ok(()), check_local).map(|()| Vec::new());
        }
        let place = bound;
        let mut bound = Vec::new();
        for thread in 0..self.threads {
            for address in addresses(place) {
                let v6 = address.is_ipv6();
                match bind(address, true) {
                    Ok(socket) => {
                        let info = SocketInfo { id: self.number(), thread, v6, place: Some(place) };
                        bound.push(Held { info, socket });
                    }
                    Err(error) if v6 && place.0.is_none() && no_ipv6(&error) => {}
                    Err(error) => return Err(bind_error(address, error)),
                }
            }
        }
        Ok(bound)
    }

    /// A range is not bound: the kernel steers to it.
    fn open_range(&self, place: Place, take_over: bool, machine: &Machine) -> Result<(), PlaceError> {
        let Place::At(addresses, port) = place else { return Ok(()) };
        if !self.steered {
            return Err(PlaceError::NeedsSteering(place));
        }
        // Of any port those that others listen on are left out; see `left_out`.
        if let Port::One(port) = port
            && !take_over
            && let Some(owner) = self.stranger_in(addresses, port.get(), machine.listening()?)
        {
            return Err(PlaceError::Busy { port: port.get(), owner, steered: true });
        }
        addresses.single().map_or_else(|| machine.check_all_local(addresses), check_local)
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }
}

fn same_place(old: &Listener, new: &Listener) -> bool {
    (&old.name, old.port, old.take_over) == (&new.name, new.port, new.take_over)
        && old.addresses == new.addresses
}

#[cfg(test)]
mod tests;
