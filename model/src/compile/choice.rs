//! `OriginGroup`: how an origin is chosen, probed and left alone.

use super::notes::{At, shown};
use crate::draft::{OriginGroupSpec, OriginSpec, ProbeSpec};
use crate::problem::Code;
use crate::route::NormalPath;
use crate::snapshot::{Choice, Ejection, Probe, ProbeMethod, Share};

/// A day: longer waits are mistakes of unit.
const LONGEST_MS: u64 = 86_400_000;

pub(super) fn share(field: &str, spec: &OriginSpec, at: &mut At<'_>) -> Share {
    let usual = Share::default();
    Share {
        disabled: !spec.enabled,
        priority: at.number(&format!("{field}.priority"), spec.priority, usual.priority, 1..=5),
        weight: at.number(&format!("{field}.weight"), spec.weight, usual.weight, 1..=1000),
    }
}

pub(super) fn lower(spec: &OriginGroupSpec, at: &mut At<'_>) -> Choice {
    let usual = Choice::default();
    let latency_sensitivity_ms = spec
        .latency_sensitivity_ms
        .map(|given| at.number("spec.latencySensitivityMs", Some(given), 0, 0..=60_000));
    if latency_sensitivity_ms.is_some() && spec.probe.is_none() {
        let message = "probes measure the latency of origins, and this group has none; add `probe: {}`, or leave this out";
        at.problem("spec.latencySensitivityMs", Code::Missing, message);
    }
    Choice {
        latency_sensitivity_ms,
        slow_start_ms: at.number("spec.slowStartMs", spec.slow_start_ms, usual.slow_start_ms, 0..=LONGEST_MS),
        probe: spec.probe.as_ref().and_then(|probe| self::probe(probe, at)),
        ejection: ejection(spec, at),
        connections: at.number(
            "spec.limits.connections",
            spec.limits.connections,
            usual.connections,
            0..=1_000_000,
        ),
        pending: at.number("spec.limits.pending", spec.limits.pending, usual.pending, 0..=1_000_000),
        retry_percent: at.number("spec.retryPercent", spec.retry_percent, usual.retry_percent, 0..=100),
    }
}

fn probe(spec: &ProbeSpec, at: &mut At<'_>) -> Option<Probe> {
    const METHODS: [(&str, ProbeMethod); 2] = [("HEAD", ProbeMethod::Head), ("GET", ProbeMethod::Get)];
    let method = match spec.method.as_deref() {
        None => Some(ProbeMethod::Head),
        Some(text) => at.word("spec.probe.method", text, &METHODS),
    };
    let text = spec.path.as_deref().unwrap_or("/");
    let path = NormalPath::parse(text);
    if let Err(why) = &path {
        at.problem("spec.probe.path", Code::Invalid, format!("{} is no path: {why}", shown(text)));
    }
    let mut statuses = Vec::with_capacity(spec.statuses.len().max(1));
    for (index, status) in spec.statuses.iter().enumerate() {
        statuses.push(at.number(&format!("spec.probe.statuses[{index}]"), Some(*status), 200, 200..=599));
    }
    if statuses.is_empty() {
        statuses.push(200);
    }
    statuses.sort_unstable();
    statuses.dedup();
    let samples = at.number("spec.probe.samples", spec.samples, 4, 1..=255);
    let usual = 3.min(samples);
    Some(Probe {
        interval_ms: at.number("spec.probe.intervalMs", spec.interval_ms, 30_000, 100..=LONGEST_MS),
        timeout_ms: at.number("spec.probe.timeoutMs", spec.timeout_ms, 5_000, 1..=600_000),
        samples,
        healthy: at.number("spec.probe.healthy", spec.healthy, usual, 1..=u64::from(samples)),
        statuses,
        method: method?,
        path: path.ok()?.as_str().to_owned(),
    })
}

fn ejection(spec: &OriginGroupSpec, at: &mut At<'_>) -> Ejection {
    let (spec, usual) = (&spec.ejection, Ejection::default());
    let base_ms = at.number("spec.ejection.baseMs", spec.base_ms, usual.base_ms, 1..=LONGEST_MS);
    Ejection {
        failures: at.number("spec.ejection.failures", spec.failures, usual.failures, 0..=10_000),
        base_ms,
        max_ms: at.number(
            "spec.ejection.maxMs",
            spec.max_ms,
            usual.max_ms.max(base_ms),
            u64::from(base_ms)..=LONGEST_MS,
        ),
        percent: at.number("spec.ejection.percent", spec.percent, usual.percent, 0..=100),
        gateway_errors: spec.gateway_errors,
    }
}
