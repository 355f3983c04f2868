//! What pages show while the load goes on.

use std::time::{Duration, Instant};

use super::flows::{self, Sampled};
use super::load::{Load, NOTED, now_ms};
use super::place::Place;
use super::screen::{Seen, looks, number};
use super::{ANSWER, EARLY, FATES, FOES, PAGES, STREAMS, WATCHED, after};

/// The load goes on for so long, also where a machine draws all pages at once.
const LEAST: Duration = Duration::from_secs(12);
/// So old are a page's figures at most.
const LAG_MS: u64 = 5000;
const ALL: [usize; STREAMS.len()] = [0, 1, 2, 3, 4, 5, 6];

impl Place<'_> {
    /// Looks at every page, large and small, light and dark; and takes up what those that are open show by themselves.
    pub(crate) fn during(&mut self, load: &Load) -> Vec<(&'static str, Sampled)> {
        let streams: [(_, &[usize]); 3] = [("foes", &[FOES]), ("watched", &[WATCHED]), ("all", &ALL)];
        let mut open = streams.map(|(tab, streams)| (tab, streams, Sampled::default()));
        let begin = Instant::now();
        for (width, theme) in looks() {
            for (path, name) in PAGES {
                let took = self.screen.open("look", path, (width, theme));
                println!("{path} at {width} {theme}: {took:?}");
                assert!(took < ANSWER, "{path} took {took:?}");
                let seen = self.screen.read("look");
                self.is_now(path, &seen, load);
                self.screen.shoot("look", &format!("load-{name}-{width}-{theme}.png"));
                self.take(&mut open, load);
            }
        }
        while begin.elapsed() < LEAST {
            std::thread::sleep(Duration::from_millis(200));
            self.take(&mut open, load);
        }
        let filter = self.screen.read("filter");
        let pressure = filter.row("budgets", "syn-pressure").unwrap();
        assert!(pressure[4].contains("over it, cookies answer"), "{pressure:?}");
        self.screen.no_complaint();
        open.map(|(tab, _, sampled)| (tab, sampled)).into()
    }

    /// Reads what is open, and takes up what it shows of its streams.
    fn take(&mut self, open: &mut [(&'static str, &[usize], Sampled)], load: &Load) {
        for (tab, streams, sampled) in open {
            let seen = self.screen.read(tab);
            self.is_now(tab, &seen, load);
            sampled.take(&seen, load, streams);
        }
    }

    /// What stands there was sent, and what was sent some seconds before stands there.
    fn is_now(&self, what: &str, seen: &Seen, load: &Load) {
        // What the generator has not written down yet.
        std::thread::sleep(NOTED);
        let sum = |streams: &[usize], at_ms: u64| -> u64 {
            let sent = load.sent_at(at_ms);
            streams.iter().flat_map(|stream| sent[*stream]).sum()
        };
        let within = |figure: u64, streams: &[usize], more: u64| {
            let least = sum(streams, seen.at_ms - LAG_MS).saturating_sub(self.lost());
            let most = sum(streams, now_ms()) + more;
            assert!((least..=most).contains(&figure), "{what}: {figure}, and not {least} to {most}");
        };
        match what {
            "/packet-filter" => {
                let hits = |rule| seen.row("rows", rule).map_or(0, |row| number(&row[3]));
                within(hits("foes"), &[FOES], EARLY);
                within(hits("watched"), &[WATCHED], 0);
            }
            "/" => {
                within(after::dropped(seen), &[FOES], u64::MAX / 2);
                assert!(!seen.text("figures").contains("Nothing was dropped"), "{seen:?}");
            }
            "foes" | "watched" => {
                let stream = if what == "foes" { FOES } else { WATCHED };
                let line = flows::line(seen).unwrap();
                within(line.drops, &[stream], 0);
                assert_eq!(line.passes, 0, "{line:?}");
                let (theirs, all) = (flows::are_as_sent(seen, &[FATES[stream]]), flows::shown(seen).len());
                assert_eq!(theirs, all, "{what}: others are there");
            }
            "all" | "/flows" => {
                let line = flows::line(seen).unwrap();
                within(line.drops + line.passes, &ALL, after::OTHERS);
                let (theirs, all) = (flows::are_as_sent(seen, &FATES), flows::shown(seen).len());
                assert!(theirs * 10 >= all * 9, "{what}: {theirs} of {all} are the load's");
            }
            _ => {}
        }
    }
}
