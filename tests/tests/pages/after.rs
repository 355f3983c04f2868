//! What pages show of a load that is over: all of it.

use std::time::Duration;

use sallyport_tests::eventually;

use super::load::{Carried, Senders, Stream};
use super::place::{Place, SENDERS_TOLD, Went};
use super::screen::{Seen, THEMES, WIDTHS, number};
use super::{EARLY, FOES, PAGES, PLAIN, PORT, PRESSURE, STREAMS, SYN, UDP, WATCHED, flows};

const SETTLED: Duration = Duration::from_secs(20);
/// Packets that the clients' kernel sends of its own, such as neighbour discovery: at most.
pub(crate) const OTHERS: u64 = 100;

/// What the overview says of dropped packets.
pub(crate) fn dropped(overview: &Seen) -> u64 {
    let text = overview.text("figures");
    let (_, panel) = text.split_once("Dropped and refused").unwrap();
    number(panel.split_whitespace().next().unwrap())
}

/// What the page Packet filter counts for a reason and rule.
fn counted(filter: &Seen, reason: &str, rule: &str) -> u64 {
    let rows = filter.rows("drops");
    let of = rows.iter().filter(|row| row[0] == reason && row[2] == rule);
    of.map(|row| number(&row[3])).sum()
}

impl Place<'_> {
    /// Every figure of rules, budgets, reasons and watches.
    pub(crate) fn figures(&mut self, went: &Went) {
        let screen = &mut self.screen;
        // These pages were open all the time: they renew themselves.
        eventually("the page Packet filter has every figure", SETTLED, || {
            filter(&screen.read("filter"), went)
        });
        let seen = screen.read("filter");
        // With what SYNs over the pressure met while cookies were not there yet.
        let dropped_by_pressure = counted(&seen, "syn budget", "load/syn-pressure");
        let over = went.over(SYN) + went.over(UDP) + went.over(PORT) + dropped_by_pressure;
        eventually("the pages Flows have every figure", SETTLED, || {
            let mut line = |tab: &str| flows::line(&screen.read(tab)).ok_or(format!("{tab}: nothing"));
            let (all, foes, watched, udp) = (line("all")?, line("foes")?, line("watched")?, line("udp")?);
            went.is("foes", foes.drops, went.sent(FOES))?;
            went.is("watched", watched.drops, went.sent(WATCHED))?;
            went.is("over UDP's budget", udp.drops, went.over(UDP))?;
            went.is("within UDP's budget", udp.passes, went.passed(UDP))?;
            went.is("dropped or observed", all.drops, went.sent(FOES) + went.sent(WATCHED) + over)?;
            let passed: u64 =
                [SYN, UDP, PORT, PRESSURE, PLAIN].map(|stream| went.passed(stream)).iter().sum();
            let answered = went.over(PRESSURE) - dropped_by_pressure;
            let others = all.passes.saturating_sub(passed + answered).min(OTHERS);
            went.is("passed", all.passes - others, passed + answered)
        });
        screen.open("overview", "/", (WIDTHS[0], THEMES[0]));
        let wanted = went.sent(FOES) + EARLY + over + went.refused;
        went.is("the overview's drops", dropped(&screen.read("overview")), wanted).unwrap();
        screen.close("overview");
    }

    /// The page Sources, on which samples stand for what was sent.
    pub(crate) fn senders(&mut self, went: &Went) {
        let screen = &mut self.screen;
        screen.open("sources", "/sources", (WIDTHS[0], THEMES[0]));
        eventually("the page Sources has every sender", SENDERS_TOLD, || {
            sources(&screen.read("sources"), went)
        });
        screen.close("sources");
    }

    /// Every page once more, for whoever looks at the pictures; and nothing keeps people from using it.
    pub(crate) fn looks(&mut self) {
        for look @ (width, theme) in [(WIDTHS[0], THEMES[0]), (WIDTHS[1], THEMES[1])] {
            for (path, name) in PAGES {
                self.screen.open("look", path, look);
                self.screen.shoot("look", &format!("loaded-{name}-{width}-{theme}.png"));
                self.screen.audit("look");
            }
        }
        self.screen.no_complaint();
    }
}

/// The page Packet filter: rules, budgets, and reasons.
fn filter(seen: &Seen, went: &Went) -> Result<(), String> {
    let rule = |name: &str| seen.row("rows", name).map(|row| number(&row[3]));
    went.is("foes", rule("foes")?, went.sent(FOES) + EARLY)?;
    went.is("watched", rule("watched")?, went.sent(WATCHED))?;
    let budget = |name: &str| seen.row("budgets", name).map(|row| number(&row[5]));
    went.is("connections", budget("new-connections-per-source")?, went.refused)?;
    for (name, stream, reason) in [
        ("syn-per-source", SYN, "syn budget"),
        ("udp-per-source", UDP, "udp budget"),
        ("web", PORT, "syn budget"),
        ("syn-pressure", PRESSURE, "syn budget"),
    ] {
        let over = went.over(stream);
        went.is(name, budget(name)?, over)?;
        let label = format!("load/{name}");
        let answered = counted(seen, "syn cookie", &label);
        went.is(&label, counted(seen, reason, &label) + answered, over)?;
        if (answered > 0) != (stream == PRESSURE) {
            return Err(format!("{label}: {answered} answered with cookies"));
        }
    }
    went.is("denied", counted(seen, "denied", "load/foes"), went.sent(FOES) + EARLY)?;
    went.is("observed", counted(seen, "observed", "load/watched"), went.sent(WATCHED))?;
    let place = seen.row("drops", "syn cookie").map(|row| row[1].clone())?;
    if place != "kernel, packets answered" {
        return Err(format!("SYNs with cookies are {place}"));
    }
    let pressure = seen.row("budgets", "syn-pressure")?;
    if pressure[4].contains("within it") { Ok(()) } else { Err(format!("{pressure:?}")) }
}

/// The page Sources: packets, bytes, SYNs and drops of every sender that is known.
fn sources(seen: &Seen, went: &Went) -> Result<(), String> {
    let record = seen.text("records");
    let one_in = match record.split_once("in busy times one packet in ") {
        Some((_, rest)) => number(rest),
        None => return Err(record.to_owned()),
    };
    let mut most = Vec::new();
    for (place, stream) in STREAMS.iter().enumerate() {
        let Senders::Few(count) = stream.senders else { continue };
        for (family, sent) in went.sent[place].into_iter().enumerate() {
            for sender in 0..u64::from(count) {
                let of_it = sent / u64::from(count) + u64::from(sender < sent % u64::from(count));
                let source = stream.source(family, sender).to_string();
                let row = seen.row("rows", &source)?;
                let dropped =
                    if place == WATCHED { 0 } else { (sent - went.passed[place][family]) / u64::from(count) };
                sender_is(&row, (stream, family), [of_it, dropped], one_in)
                    .map_err(|why| format!("{row:?}: {why}"))?;
                if place == FOES {
                    most.push(source);
                }
            }
        }
    }
    // Those who sent most come first.
    let rows = seen.rows("rows");
    let first = rows.iter().take(most.len()).all(|row| most.contains(&row[0]));
    if first { Ok(()) } else { Err(format!("{:?}, and not {most:?}", rows.first())) }
}

/// A sender's row, of whose packets at worst one in so many was looked at: five times the root of what chance does to it.
fn sender_is(
    row: &[String],
    (stream, family): (&Stream, usize),
    [sent, dropped]: [u64; 2],
    one_in: u64,
) -> Result<(), String> {
    let near = |what: &str, figure: u64, wanted: u64| {
        let off = 5.0 * ((wanted * one_in) as f64).sqrt();
        if figure.abs_diff(wanted) as f64 <= off {
            Ok(())
        } else {
            Err(format!("{what}: {figure} of {wanted}, within {off:.0}"))
        }
    };
    let packets = number(&row[3]);
    near("packets", packets, sent)?;
    near("SYNs", number(&row[5]), if stream.carried == Carried::Syn { sent } else { 0 })?;
    near("drops", number(&row[6]), dropped)?;
    let (value, unit) = row[4].split_once(' ').ok_or("no bytes")?;
    let scale = ["B", "kB", "MB", "GB"].iter().position(|known| *known == unit).ok_or("no unit")?;
    let bytes = value.replace(',', "").parse::<f64>().map_err(|error| error.to_string())?
        * 1000f64.powi(scale as i32);
    let wanted = (packets * stream.length(family)) as f64;
    // Two digits at least are written.
    if (bytes - wanted).abs() <= wanted * 0.06 {
        Ok(())
    } else {
        Err(format!("{bytes} bytes and not {wanted}"))
    }
}
