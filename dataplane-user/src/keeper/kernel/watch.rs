//! Keeps the programs where they belong: interfaces come and go, are made anew and change their names.

use std::time::Instant;

use model::report::Feature;

use super::beside::Progress;
use super::links::{self, Interface, State};
use super::linux::{Interfaces, Linux};
use super::{KernelError, off, sys};

/// Every how many looks the routes are read, which may be many.
const ROUTES: u64 = 5;

impl Linux {
    /// Puts the filter on every interface that is to have it, and takes it off the others.
    pub(super) fn attach_filter(&mut self) {
        let names = self.wanted();
        self.interfaces = names.iter().map(|name| self.filter_on(name)).collect();
        self.note_gaps();
        self.keep_only(&names);
    }

    fn keep_only(&self, names: &[String]) {
        if let Err(error) = links::keep_only(&self.pins, names) {
            tracing::warn!(error = off::with_causes(&error), "a former filter cannot be taken off");
        }
    }

    pub(super) fn attach_steering(&mut self) -> Result<(), KernelError> {
        self.steer = match &self.programs.steer {
            Ok(program) => match links::steer(&self.pins, &self.config.instance, program, &self.namespace) {
                Ok(()) => State::On(self.how_steered()),
                Err(error @ KernelError::OtherNamespace { .. }) => return Err(error),
                Err(error) => State::Off(off::with_causes(&error)),
            },
            Err(why) => State::Off(refused(why)),
        };
        self.steered = self.steer.is_on();
        Ok(())
    }

    /// Has the kernel ask about new connections: the tables will steer some.
    pub(super) fn ask(&mut self) {
        self.asked = true;
        if self.progress == Progress::Settled {
            self.look_at_steering();
        }
    }

    /// Has the kernel ask about nothing where the tables steer nothing.
    pub(super) fn rest(&mut self) {
        if self.asked || self.progress != Progress::Settled || !self.steer.is_on() {
            return;
        }
        match links::rest(&self.pins, &self.namespace) {
            Ok(()) => self.steer = State::On("it rests: no listener accepts".to_owned()),
            // It is asked for nothing then, which costs time and nothing else.
            Err(error) => tracing::warn!(error = off::with_causes(&error), "steering cannot rest"),
        }
    }

    /// Puts steering back where somebody took it off, or where it rested.
    fn look_at_steering(&mut self) {
        let ours = self.lock.is_of(self.pins.dir());
        if !ours || !self.steered || !self.asked || links::steers(&self.pins, &self.namespace) {
            return;
        }
        let former = self.steer.clone();
        // Where connections are accepted does not change with it: they wait for steering to come back.
        let again = self.attach_steering();
        self.steered = true;
        if let Err(error) = again {
            self.steer = State::Off(off::with_causes(&error));
        }
        said("sk_lookup", &former, &self.steer);
    }

    fn filter_on(&self, name: &str) -> Interface {
        match &self.programs.filter {
            Ok(program) => links::filter(&self.pins, name, program),
            Err(why) => Interface {
                name: name.to_owned(),
                state: State::Off(refused(why)),
                queues: None,
                renamed: false,
            },
        }
    }

    /// Those named; or those found, and those that have the filter already: a route that is gone for a moment opens nothing.
    /// Where there is neither, those that were: they may be made anew.
    pub(super) fn wanted(&self) -> Vec<String> {
        let find = match &self.config.interfaces {
            Interfaces::Named(names) => return names.clone(),
            Interfaces::Found(find) => find,
        };
        let mut names = find();
        names.extend(links::filtered(&self.pins));
        if names.is_empty() {
            names.extend(self.interfaces.iter().map(|interface| interface.name.clone()));
        }
        names.sort_unstable();
        names.dedup();
        names
    }

    /// What `features` says where there is no interface at all.
    pub(super) fn no_interface(&self) -> Feature {
        let detail = match self.config.interfaces {
            Interfaces::Named(_) => "no interface was given: name one with --interface",
            Interfaces::Found(_) => {
                "no default route leads out: an interface gets the filter within 5 seconds after one leads over it, or name it with --interface"
            }
        };
        Feature { name: "xdp".to_owned(), on: false, detail: detail.to_owned() }
    }

    /// Called about once a second, and with `routes` when the kernel said that something changed.
    pub(super) fn look_at_links(&mut self, routes: bool) {
        if self.progress != Progress::Settled {
            return;
        }
        if !self.lock.is_of(self.pins.dir()) {
            self.give_way();
            return;
        }
        let find = matches!(self.config.interfaces, Interfaces::Found(_))
            && (routes || self.looks.is_multiple_of(ROUTES));
        self.looks += u64::from(!routes);
        let there = |interface: &Interface| links::stands(&self.pins, interface);
        if find || !self.interfaces.iter().all(there) {
            self.look_at_interfaces();
        }
        self.note_gaps();
        self.look_at_steering();
    }

    /// Remembers on which interfaces the filter is and on which it is not, which was looked at just now.
    fn note_gaps(&mut self) {
        let now = Instant::now();
        for Interface { name, state, .. } in &self.interfaces {
            match state {
                State::On(_) => self.gaps.filtered(name, now),
                State::Off(_) if sys::interface_index(name).is_some() => self.gaps.open(name),
                State::Off(_) => self.gaps.absent(name, now),
            }
        }
    }

    fn look_at_interfaces(&mut self) {
        let names = self.wanted();
        // Before anything is attached again.
        let filtered = links::filtered(&self.pins);
        let is_gone = |one: &&Interface| {
            one.state.is_on() && !filtered.contains(&one.name) && sys::interface_index(&one.name).is_some()
        };
        // They were open also where they are filtered again at once.
        self.interfaces.iter().filter(is_gone).for_each(|one| self.gaps.open(&one.name));
        let looked: Vec<Interface> = names.iter().map(|name| self.look_at(name)).collect();
        let queues = |interfaces: &[Interface]| interfaces.iter().map(|one| one.queues).collect::<Vec<_>>();
        let changed = queues(&self.interfaces) != queues(&looked);
        self.interfaces = looked;
        self.gaps.keep_only(&names);
        self.keep_only(&names);
        if changed && let Err(error) = self.choose_by_queues() {
            tracing::warn!(error = off::with_causes(&error), "steering is not told of other queues");
        }
    }

    fn look_at(&self, name: &str) -> Interface {
        let known = self.interfaces.iter().find(|known| known.name == name);
        if let Some(known) = known.filter(|known| links::stands(&self.pins, known)) {
            return Interface {
                name: name.to_owned(),
                state: known.state.clone(),
                queues: known.queues,
                renamed: false,
            };
        }
        let looked = self.filter_on(name);
        let former = known.map_or(State::Off(String::new()), |known| known.state.clone());
        said(name, &former, &looked.state);
        looked
    }

    /// Somebody removed everything, which `sallyport-node detach --force` is for: it is not for us to undo, and what was made in its
    /// place is another keeper's.
    fn give_way(&mut self) {
        let gone = State::Off(format!(
            "{} was removed while the node runs: restart the node to have it again",
            self.pins.dir().display()
        ));
        if self.steer != gone {
            said("filter and steering", &self.steer, &gone);
        }
        self.interfaces.iter_mut().for_each(|interface| interface.state = gone.clone());
        self.steer = gone;
    }
}

fn refused(why: &str) -> String {
    format!("the kernel does not accept the program: {why}")
}

/// Logs what is new.
fn said(what: &str, former: &State, now: &State) {
    match now {
        State::On(how) if former != now => tracing::info!(what, how, "a kernel program is on"),
        State::Off(why) if former != now => tracing::warn!(what, why, "a kernel program is off"),
        State::On(_) | State::Off(_) => {}
    }
}
