//! Watched packets on their way from the keeper to the console: taken apart here, where hostile bytes are read, looked at once
//! more by what was asked for, and sent on a stream of their own. What the stream has no room for is left out and counted.

mod glance;
pub(super) mod stream;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::flow::{Captured, FlowCounts, FlowEvent, FlowMessage, FlowWatch};
use tokio::sync::mpsc;

use self::glance::glance;
use crate::handover::message::WatchedPacket;

/// Bytes of a packet that could not be read which are shown.
const SHOWN: usize = 64;

/// What the console watches through this worker.
#[derive(Debug, Default)]
pub(super) struct Flows {
    watches: Vec<FlowWatch>,
    out: Option<mpsc::Sender<FlowMessage>>,
    /// By watch, what the stream had no room for.
    dropped: BTreeMap<u64, u64>,
}

impl Flows {
    /// There is a stream to the console, or another one.
    pub(super) fn up(&mut self, out: mpsc::Sender<FlowMessage>) {
        self.out = Some(out);
    }

    /// What the console watches from now on.
    pub(super) fn watch(&mut self, watches: Vec<FlowWatch>) {
        self.dropped.retain(|id, _| watches.iter().any(|watch| watch.id == *id));
        self.watches = watches;
    }

    /// Nothing can be watched.
    pub(super) fn cannot(&self, reason: String) {
        if let Some(out) = &self.out {
            // A stream that is full is told with the next order.
            let _full = out.try_send(FlowMessage::Cannot { reason });
        }
    }

    /// This cannot be watched, and everything else can.
    pub(super) fn refused(&self, watch: u64, reason: String) {
        if let Some(out) = &self.out {
            // As above.
            let _full = out.try_send(FlowMessage::Refused { watch, reason });
        }
    }

    /// What the keeper took from the kernel.
    pub(super) fn take(&mut self, packets: &[WatchedPacket], counts: Vec<(u64, FlowCounts)>) {
        let mut found: BTreeMap<u64, (Vec<FlowEvent>, Vec<Captured>)> = BTreeMap::new();
        for packet in packets {
            let bytes = STANDARD.decode(&packet.bytes).unwrap_or_default();
            let event = event(packet, &bytes);
            for taken in &packet.taken {
                let Some(watch) = self.watches.iter().find(|watch| watch.id == taken.watch) else { continue };
                // The kernel may have asked while another watch stood half written in this one's place.
                if !watch.filter.is_about(&event) {
                    continue;
                }
                let (events, captured) = found.entry(watch.id).or_default();
                if watch.capture.is_some() {
                    let (time_ns, length) = (packet.time_ns, packet.length);
                    captured.push(Captured { time_ns, length, bytes: packet.bytes.clone() });
                } else {
                    events.push(FlowEvent { one_in: taken.one_in, ..event.clone() });
                }
            }
        }
        for (watch, counts) in counts {
            let (events, captured) = found.remove(&watch).unwrap_or_default();
            self.send(watch, events, captured, counts);
        }
    }

    fn send(&mut self, watch: u64, events: Vec<FlowEvent>, captured: Vec<Captured>, mut counts: FlowCounts) {
        let Some(out) = &self.out else { return };
        let dropped = self.dropped.entry(watch).or_default();
        counts.lost += *dropped;
        let packets = (events.len() + captured.len()) as u64;
        if out.try_send(FlowMessage::Flows { watch, events, captured, counts }).is_err() {
            *dropped += packets;
        }
    }
}

fn event(packet: &WatchedPacket, bytes: &[u8]) -> FlowEvent {
    let glance = glance(bytes);
    let head = glance.source.is_none().then(|| {
        bytes.iter().take(SHOWN).fold(String::new(), |mut text, byte| {
            let _written = write!(text, "{byte:02x}");
            text
        })
    });
    FlowEvent {
        time_ns: packet.time_ns,
        interface: packet.interface.clone(),
        verdict: packet.verdict,
        reason: packet.reason.clone(),
        rule: packet.rule,
        source: glance.source,
        source_port: glance.ports.map(|(source, _)| source),
        destination: glance.destination,
        destination_port: glance.ports.map(|(_, destination)| destination),
        protocol: glance.protocol,
        icmp_type: glance.icmp_type,
        bytes: packet.length,
        one_in: 1,
        head,
    }
}

#[cfg(test)]
mod tests {
    use model::flow::{Capture, FlowFilter, Verdict};

    use super::*;
    use crate::handover::message::Taken;

    fn packet(watch: u64) -> WatchedPacket {
        let mut frame = vec![2; 12];
        frame
            .extend([8, 0, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 1, 2, 3, 10, 0, 0, 1, 0, 9, 1, 0xbb]);
        WatchedPacket {
            taken: vec![Taken { watch, one_in: 4 }],
            time_ns: 5,
            length: 60,
            interface: "eth0".to_owned(),
            verdict: Verdict::Drop,
            reason: "denied".to_owned(),
            rule: 7,
            bytes: STANDARD.encode(frame),
        }
    }

    #[test]
    fn a_packet_reaches_the_watch_that_it_is_about() {
        let (out, mut heard) = mpsc::channel(4);
        let mut flows = Flows::default();
        flows.up(out);
        let other = FlowFilter { port: Some(80), ..FlowFilter::default() };
        let capture = Some(Capture { packets: 1, snap: 64 });
        flows.watch(vec![
            FlowWatch { id: 1, filter: FlowFilter::default(), capture: None },
            FlowWatch { id: 2, filter: other, capture: None },
            FlowWatch { id: 3, filter: FlowFilter::default(), capture },
        ]);
        let counts = [1, 2, 3].map(|watch| (watch, FlowCounts::default())).to_vec();
        flows.take(&[packet(1), packet(2), packet(3), packet(4)], counts);
        let mut told = BTreeMap::new();
        while let Ok(FlowMessage::Flows { watch, events, captured, .. }) = heard.try_recv() {
            told.insert(watch, (events, captured));
        }
        let (events, captured) = &told[&1];
        assert_eq!((events.len(), captured.len()), (1, 0));
        assert_eq!((events[0].one_in, events[0].destination_port, &events[0].head), (4, Some(443), &None));
        assert_eq!((told[&2].0.len(), told[&3].1.len()), (0, 1));
    }

    #[test]
    fn what_the_stream_has_no_room_for_is_counted() {
        let (out, mut heard) = mpsc::channel(1);
        let mut flows = Flows::default();
        flows.up(out);
        flows.watch(vec![FlowWatch { id: 1, filter: FlowFilter::default(), capture: None }]);
        let mut tell = |packets: &[WatchedPacket]| flows.take(packets, vec![(1, FlowCounts::default())]);
        tell(&[packet(1)]);
        tell(&[packet(1), packet(1)]);
        assert!(matches!(heard.try_recv(), Ok(FlowMessage::Flows { counts, .. }) if counts.lost == 0));
        tell(&[]);
        assert!(matches!(heard.try_recv(), Ok(FlowMessage::Flows { counts, .. }) if counts.lost == 2));
    }
}
