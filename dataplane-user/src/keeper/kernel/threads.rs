//! How connections come to worker threads: by the CPU that received them, or by a hash where that would leave some idle.

use std::os::fd::AsFd;

use dataplane_ebpf::wire::{Steering, THREADS_MAX, maps};

use super::links::{Interface, State};
use super::linux::Linux;
use super::{KernelError, sys};

impl Linux {
    /// An interface whose receive queues are fewer than the worker threads, of which some would be left idle if the CPU chose.
    fn short_of_queues(&self) -> Option<(&str, u32)> {
        let queues =
            |interface: &Interface| interface.queues.filter(|queues| (*queues as usize) < self.workers);
        self.interfaces.iter().find_map(|interface| Some((interface.name.as_str(), queues(interface)?)))
    }

    /// Writes how a connection's thread is chosen, once there are any.
    pub(super) fn choose_by_queues(&mut self) -> Result<(), KernelError> {
        let Ok(count) = threads_in_range(self.workers) else { return Ok(()) };
        let word = Steering::new(count, self.short_of_queues().is_some());
        sys::map_update(self.steering.as_fd(), &0_u32.to_ne_bytes(), &word.0.to_ne_bytes())
            .map_err(KernelError::table("writing", maps::STEERING))?;
        if self.asked && self.steer.is_on() {
            self.steer = State::On(self.how_steered());
        }
        Ok(())
    }

    /// How connections come to worker threads, for people: what the word says that [`Self::choose_by_queues`] writes.
    pub(super) fn how_steered(&self) -> String {
        match (self.workers, self.short_of_queues()) {
            (0, _) => "the kernel hands connections to worker threads".to_owned(),
            (1, _) => "the kernel hands connections to the one worker thread".to_owned(),
            (_, None) => "the kernel hands connections to the worker thread of their CPU".to_owned(),
            (threads, Some((name, queues))) => {
                let plural = if queues == 1 { "" } else { "s" };
                format!(
                    "the kernel hands connections to worker threads by a hash of the client's address and port, for {name} has {queues} receive queue{plural} and there are {threads} threads: with as many queues (`ethtool -L {name} combined {threads}`, where the driver has them) or fewer threads (--threads) each would go to the thread of its CPU"
                )
            }
        }
    }
}

/// A number of threads that a node can have.
pub(super) fn threads_in_range(threads: usize) -> Result<u32, KernelError> {
    u32::try_from(threads)
        .ok()
        .filter(|threads| (1..=THREADS_MAX).contains(threads))
        .ok_or(KernelError::Threads { asked: threads })
}
