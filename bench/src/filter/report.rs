//! Figures to text.

use std::fmt::Write;
use std::time::Duration;

use crate::STANDING;
use crate::generator::{Lie, List};
use crate::updates::Change;
use crate::variants::Variant;

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Dropped,
    /// Passed, and read from a socket.
    Read,
    /// Passed, to a socket that is full.
    Full,
}

impl Fate {
    pub(crate) const ALL: [Self; 3] = [Self::Dropped, Self::Read, Self::Full];

    fn name(self) -> &'static str {
        match self {
            Self::Dropped => "dropped",
            Self::Read => "passed and read",
            Self::Full => "passed to a full socket",
        }
    }
}

/// One measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// CPU time of the thread that does everything.
    pub(crate) spent: Duration,
    /// Packets.
    pub(crate) made: u64,
}

impl Sample {
    fn nanoseconds(&self) -> f64 {
        self.spent.as_nanos() as f64 / self.made as f64
    }
}

/// One kind of packet and everyone who met it, round by round.
pub(crate) struct Row {
    list: List,
    pub(crate) fate: Fate,
    samples: Vec<(Variant, Vec<Sample>)>,
}

impl Row {
    pub(crate) fn new(list: List, fate: Fate) -> Self {
        let takes_part = |variant: &Variant| match fate {
            Fate::Dropped => variant.drops(),
            Fate::Read | Fate::Full => variant.passes(),
        };
        let samples =
            Variant::ALL.into_iter().filter(takes_part).map(|variant| (variant, Vec::new())).collect();
        Self { list, fate, samples }
    }

    pub(crate) fn has(&self, variant: Variant) -> bool {
        self.samples.iter().any(|(one, _)| *one == variant)
    }

    pub(crate) fn push(&mut self, variant: Variant, sample: Sample) {
        if let Some((_, samples)) = self.samples.iter_mut().find(|(one, _)| *one == variant) {
            samples.push(sample);
        }
    }

    /// For whoever watches the run.
    pub(crate) fn describe(&self) -> String {
        let each = self
            .samples
            .iter()
            .map(|(variant, _)| format!("{} {}", variant.name(), Spread::of(self.values(*variant)).text(0)));
        format!("{}: {}", self.title(), each.collect::<Vec<_>>().join(", "))
    }

    pub(crate) fn title(&self) -> String {
        format!("{}, {}", self.prefixes(), self.fate.name())
    }

    /// Which prefixes these are.
    fn prefixes(&self) -> String {
        let apart = if self.list.lie == Lie::Apart { " apart" } else { "" };
        format!("{} {}{apart}", self.list.family.name(), thousands(self.list.count))
    }

    fn values(&self, variant: Variant) -> Vec<f64> {
        let found = self.samples.iter().find(|(one, _)| *one == variant);
        found.map(|(_, samples)| samples.iter().map(Sample::nanoseconds).collect()).unwrap_or_default()
    }

    /// nftables at whichever of its hooks has the lower median here.
    fn best_nft(&self) -> Vec<f64> {
        let [first, second] = [Variant::NftIngress, Variant::NftPrerouting].map(|one| self.values(one));
        if Spread::of(second.clone()).0 < Spread::of(first.clone()).0 { second } else { first }
    }

    fn ratio(&self, variant: Variant, base: &[f64]) -> String {
        let ratios = self.values(variant).iter().zip(base).map(|(ours, theirs)| ours / theirs).collect();
        Spread::of(ratios).text(2)
    }

    /// What it costs more than `base`: the mean of the differences within a round, and its standard error by what they are from one
    /// setting up to the next, which rounds of one of them have in common.
    fn more(&self, variant: Variant, base: &[f64]) -> String {
        let differences: Vec<f64> =
            self.values(variant).iter().zip(base).map(|(ours, theirs)| ours - theirs).collect();
        let settings: Vec<f64> =
            differences.chunks(STANDING).map(|some| Spread::of(some.to_vec()).0).collect();
        let count = settings.len() as f64;
        let mean = settings.iter().sum::<f64>() / count;
        let variance = settings.iter().map(|one| (one - mean).powi(2)).sum::<f64>() / (count - 1.0);
        let ratio = 1.0 + mean / Spread::of(base.to_vec()).0;
        match settings.len() {
            0 | 1 => format!("{mean:.0}, error unknown: {ratio:.3}"),
            _ => format!("{mean:.0} ± {:.0}: {ratio:.3}", (variance / count).sqrt()),
        }
    }

    /// [`Self::ratio`] of what each costs beyond the generator.
    fn net_ratio(&self, variant: Variant, base: &[f64]) -> String {
        let alone = self.values(Variant::Generator);
        let both = self.values(variant).into_iter().zip(base.iter().copied()).zip(alone);
        let ratios = both.map(|((ours, theirs), alone)| (ours - alone) / (theirs - alone)).collect();
        Spread::of(ratios).text(2)
    }
}

/// Median, and the quartiles on its sides.
struct Spread(f64, f64, f64);

impl Spread {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        let (last, half) = (values.len().saturating_sub(1), values.len() / 2);
        let quarter = values.len() / 4;
        let median = if values.len() % 2 == 1 {
            at(half)
        } else {
            f64::midpoint(at(half.saturating_sub(1)), at(half))
        };
        Self(median, at(quarter), at(last - quarter))
    }

    fn text(&self, digits: usize) -> String {
        let Self(median, low, high) = self;
        format!("{median:.digits$} ({low:.digits$} to {high:.digits$})")
    }
}

/// The tables.
pub(crate) fn render(rows: &[Row], changes: &[Change]) -> String {
    let of = |fate| rows.iter().filter(move |row| row.fate == fate);
    let mut text = String::from("\n## CPU time of a dropped packet, nanoseconds\n\n");
    let dropped = [Variant::Generator, Variant::Sallyport, Variant::NftIngress, Variant::NftPrerouting];
    let ratios = ["Sallyport to the better nftables", "the same, both without the generator"];
    head(&mut text, &dropped, &ratios);
    for row in of(Fate::Dropped) {
        let base = row.best_nft();
        let ratios = [row.ratio(Variant::Sallyport, &base), row.net_ratio(Variant::Sallyport, &base)];
        line(&mut text, row, &dropped, &ratios);
    }
    for (fate, title) in [
        (Fate::Read, "CPU time of a passed packet that is read from its socket, nanoseconds"),
        (Fate::Full, "CPU time of a passed packet that finds its socket full, nanoseconds"),
    ] {
        let _ = writeln!(text, "\n## {title}\n");
        let passed = [
            Variant::Nothing,
            Variant::Sallyport,
            Variant::Listener,
            Variant::Budget,
            Variant::NftIngress,
            Variant::NftPrerouting,
        ];
        let ratios = [
            "Sallyport more than no filter: to it",
            "Sallyport to no filter",
            "with a listener",
            "with a budget",
            "nftables ingress to no filter",
            "nftables prerouting",
        ];
        head(&mut text, &passed, &ratios);
        for row in of(fate) {
            let base = row.values(Variant::Nothing);
            let others = [
                Variant::Sallyport,
                Variant::Listener,
                Variant::Budget,
                Variant::NftIngress,
                Variant::NftPrerouting,
            ];
            let mut ratios = vec![row.more(Variant::Sallyport, &base)];
            ratios.extend(others.map(|variant| row.ratio(variant, &base)));
            line(&mut text, row, &passed, &ratios);
        }
    }
    text.push_str("\n## A change of the rules, milliseconds\n\n| change | time |\n|---|---|\n");
    for change in changes {
        let times = change.times.iter().map(|time| time.as_secs_f64() * 1e3).collect();
        let _ = writeln!(text, "| {} | {} |", change.title, Spread::of(times).text(2));
    }
    let _ = writeln!(text, "\n{}.", machine());
    text
}

fn head(text: &mut String, variants: &[Variant], ratios: &[&str]) {
    let names: Vec<&str> =
        variants.iter().map(|variant| variant.name()).chain(ratios.iter().copied()).collect();
    let _ = writeln!(text, "| prefixes | {} |\n|---|{}", names.join(" | "), "---|".repeat(names.len()));
}

fn line(text: &mut String, row: &Row, variants: &[Variant], ratios: &[String]) {
    let values = variants.iter().map(|variant| Spread::of(row.values(*variant)).text(0));
    let cells: Vec<String> = values.chain(ratios.iter().cloned()).collect();
    let _ = writeln!(text, "| {} | {} |", row.prefixes(), cells.join(" | "));
}

fn thousands(number: u32) -> String {
    match number {
        0..1000 => number.to_string(),
        _ => format!("{},{:03}", number / 1000, number % 1000),
    }
}

fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let model = read("/proc/cpuinfo");
    let model = model.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown processor");
    let nft = std::process::Command::new("nft").arg("--version").output().map(|output| output.stdout);
    let nft = String::from_utf8_lossy(&nft.unwrap_or_default()).trim().to_owned();
    format!(
        "{}, Linux {}, {nft}; load average {} at the end, of which this is 1",
        model.trim_start_matches([' ', '\t', ':']),
        read("/proc/sys/kernel/osrelease").trim(),
        read("/proc/loadavg").split(' ').next().unwrap_or("unknown")
    )
}

/// The page for the documentation.
pub(crate) fn page(tables: &str, used: &str) -> String {
    format!(
        "{}{tables}Median (first to third quartile) of {used}.\n{}",
        include_str!("page_head.md"),
        include_str!("page_tail.md")
    )
}
