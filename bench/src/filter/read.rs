//! Who reads what passed: a thread that is woken by a packet and takes what came with it, as a server is.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::{Result, sys};

/// How long the reader waits until it looks whether it is over.
const PATIENCE: Duration = Duration::from_millis(10);

/// Ends the reader, however what it reads for ends.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Does something while another thread on the same core reads from a socket, which counts what it has read.
///
/// The reader goes first: packets come in batches, as a driver polls, which no reader interrupts, and the next batch waits until it has
/// read them.
pub(crate) fn while_read<T: Send>(
    socket: &UdpSocket,
    work: impl FnOnce(&AtomicU64) -> Result<T>,
) -> Result<T> {
    socket.set_read_timeout(Some(PATIENCE))?;
    let (read, over) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let reader = scope.spawn(|| -> std::io::Result<()> {
            sys::go_first()?;
            let mut room = [[0; 64]; 64];
            while !over.load(Ordering::Relaxed) {
                match sys::receive(socket.as_fd(), &mut room) {
                    Ok(some) => _ = read.fetch_add(some, Ordering::Relaxed),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => (),
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        });
        let done = {
            let _ends = Ends(&over);
            work(&read)
        };
        reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        done
    })
}
