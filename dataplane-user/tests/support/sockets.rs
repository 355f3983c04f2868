//! What connections are steered to.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd;

use sallyport_node::keeper::kernel::{Kernel, Linux};
use socket2::{Domain, Socket, Type};

/// A thread's sockets, on ports nobody is told, as the product has them.
pub(crate) struct Sockets {
    pub(crate) v4: TcpListener,
    pub(crate) v6: TcpListener,
}

impl Sockets {
    pub(crate) fn new() -> Self {
        let v6 = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
        v6.set_only_v6(true).unwrap();
        v6.bind(&SocketAddr::from((Ipv6Addr::LOCALHOST, 0)).into()).unwrap();
        v6.listen(1024).unwrap();
        Self { v4: TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(), v6: v6.into() }
    }

    /// Those of the one thread there is.
    pub(crate) fn alone(kernel: &mut Linux) -> Self {
        let sockets = Self::new();
        sockets.enter(kernel, 0);
        kernel.set_threads(1).unwrap();
        sockets
    }

    pub(crate) fn enter(&self, kernel: &mut Linux, thread: usize) {
        kernel.set_sockets(thread, self.v4.as_fd(), self.v6.as_fd()).unwrap();
    }
}
