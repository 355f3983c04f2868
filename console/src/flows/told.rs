//! What a node tells of a watch: its figures, and of how many packets one was told while they came about. The rate moves with the
//! packets, so the one in force at present says little of those that a flood brought before.

use model::flow::{ByVerdict, FlowCounts, FlowEvent, Verdict};

/// One packet in so many was told, from the finest rate to the coarsest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// The least; 1: each was told.
    pub finest: u32,
    /// The most.
    pub coarsest: u32,
}

impl Rates {
    fn of(one_in: u32) -> Self {
        // What a node says is not believed to be at least 1.
        let one_in = one_in.max(1);
        Self { finest: one_in, coarsest: one_in }
    }

    fn widen(known: &mut Option<Self>, one_in: u32) {
        let new = Self::of(one_in);
        *known = Some(known.map_or(new, |known| Self {
            finest: known.finest.min(new.finest),
            coarsest: known.coarsest.max(new.coarsest),
        }));
    }
}

/// A watch at one node, since it began there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Told {
    /// The node's figures.
    pub counts: FlowCounts,
    rates: ByVerdict<Option<Rates>>,
}

impl Told {
    /// The node told these packets, and has these figures now.
    pub(crate) fn hear(&mut self, events: &[FlowEvent], counts: FlowCounts) {
        let (new, known) = (counts.matched, self.counts.matched);
        if new.drops < known.drops || new.passes < known.passes {
            // The node's keeper was started again, and its figures begin anew.
            *self = Self::default();
        }
        // Also of what was lost, or whose turn did not come, the rate is told.
        if new.drops > self.counts.matched.drops {
            Rates::widen(&mut self.rates.drops, counts.one_in.drops);
        }
        if new.passes > self.counts.matched.passes {
            Rates::widen(&mut self.rates.passes, counts.one_in.passes);
        }
        for event in events {
            let class = match event.verdict {
                Verdict::Drop | Verdict::Observed => &mut self.rates.drops,
                Verdict::Pass => &mut self.rates.passes,
            };
            Rates::widen(class, event.one_in);
        }
        self.counts = counts;
    }

    /// At which rates packets were told; while there were none, at which they would be.
    pub fn rates(&self) -> ByVerdict<Rates> {
        let (known, present) = (self.rates, self.counts.one_in);
        ByVerdict {
            drops: known.drops.unwrap_or(Rates::of(present.drops)),
            passes: known.passes.unwrap_or(Rates::of(present.passes)),
        }
    }
}
