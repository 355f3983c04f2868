//! What a field means that is not written, so that a change says what becomes of it.

/// By the field's path, as docs/configuration.md has it. Not here: what depends on something else (a
/// probe there is not has no path), and what two kinds mean differently.
const DEFAULTS: [(&str, &str); 43] = [
    ("protocol", "HTTPS"),
    ("tls.minVersion", "1.2"),
    ("takeOver", "false"),
    ("limits.connectionsPerAddress", "10000"),
    ("limits.handshakeMs", "10000"),
    ("limits.handshakeBytes", "32768"),
    ("limits.targetBytes", "8192"),
    ("limits.bodyBytes", "0"),
    ("limits.headerMs", "15000"),
    ("limits.idleMs", "75000"),
    ("limits.stallMs", "60000"),
    ("limits.bodyBytesPerSecond", "240"),
    ("limits.requestsPerConnection", "0"),
    ("limits.streams", "128"),
    ("limits.drainMs", "30000"),
    ("limits.tunnelIdleMs", "300000"),
    ("http.answer", "Redirect"),
    ("http.httpsPort", "443"),
    ("http.clearText", "refused"),
    ("tls", "Terminate"),
    ("enabled", "true"),
    ("allowEncodedSlash", "false"),
    ("responseTimeoutMs", "60000"),
    ("tls.trustBundle", "system"),
    ("tls.verify", "on"),
    ("clearText", "refused"),
    ("connectTimeoutMs", "5000"),
    ("http2.streams", "100"),
    ("http2.pingMs", "310000"),
    ("slowStartMs", "0"),
    ("ejection.failures", "5"),
    ("ejection.percent", "50"),
    ("ejection.gatewayErrors", "false"),
    ("limits.pending", "100"),
    ("retryPercent", "20"),
    ("source.intervalSeconds", "3600"),
    ("source.maxBytes", "8388608"),
    ("source.trustBundle", "system"),
    ("source.maxShrinkPercent", "50"),
    ("protocols.mode", "Enforce"),
    (RULE_MODE, "Enforce"),
    (RULE_PRIORITY, "0"),
    (BUDGET_MODE, "Enforce"),
];

const RULE_MODE: &str = "rules[].mode";
const RULE_PRIORITY: &str = "rules[].priority";
const BUDGET_MODE: &str = "budgets.*.mode";

/// The default of a field; nothing where it has none that is a value.
pub(super) fn of(path: &str) -> Option<&'static str> {
    // Rules and budgets stand there by their names: `rule walkers.mode`.
    let written = match path.split_once(' ').and_then(|(what, rest)| Some((what, rest.rsplit_once('.')?.1))) {
        Some(("rule", "mode")) => RULE_MODE,
        Some(("rule", "priority")) => RULE_PRIORITY,
        Some(("budget", "mode")) => BUDGET_MODE,
        Some(_) => return None,
        None => path,
    };
    DEFAULTS.iter().find(|(field, _)| *field == written).map(|(_, default)| *default)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use serde_json::{Value, json};
    use time::macros::datetime;

    use super::*;
    use crate::certificate::Facts;
    use crate::compile::{Input, compile};
    use crate::draft::{API_VERSION, Spec, parse};
    use crate::filter::Source;
    use crate::problem::Problem;
    use crate::snapshot::{Snapshot, SnapshotId};

    #[test]
    fn the_documentation_has_the_same_defaults() {
        let text = include_str!("../../../docs/configuration.md");
        let plain = |cell: &str| cell.replace(['`', '"', ','], "").trim().to_owned();
        for (field, default) in DEFAULTS {
            let name = field.trim_start_matches("limits.").trim_start_matches("http.");
            let found = text.lines().filter_map(|line| {
                let mut cells = line.strip_prefix("| ")?.split(" | ");
                let (names, value) = (cells.next()?, cells.next()?);
                let place = names.split(", ").position(|one| plain(one) == name || plain(one) == field)?;
                Some(plain(value.split(", ").nth(place).unwrap_or(value)))
            });
            let found: Vec<String> = found.collect();
            assert!(
                found.iter().any(|value| value.split(' ').next() == Some(default)),
                "{field}: {default}, and the documentation says {found:?}"
            );
        }
    }

    /// What of the defaults a document can say: of the others the words only stand for what is not there.
    const UNSAYABLE: [&str; 3] = ["http.clearText", "tls.verify", "clearText"];

    /// Whoever writes a default gets what is there without it.
    #[test]
    fn the_compiler_has_the_same_defaults() {
        let bases = [
            ("Listener", json!({"port": 443})),
            ("Listener", json!({"port": 80, "protocol": "HTTP"})),
            ("Route", json!({"hostnames": ["shop.example.com"], "originGroup": "o", "certificate": "c"})),
            ("OriginGroup", json!({"origins": [{"url": "https://a.test"}]})),
            ("PrefixSet", json!({"source": {"url": "https://a.test/list"}})),
            (
                "PacketFilter",
                json!({"protocols": {"allow": ["tcp"]},
                "rules": [{"name": "r", "action": "Deny", "prefixes": ["192.0.2.0/24"]}],
                "budgets": {"synPerSource": {"rate": 10, "burst": 10}}}),
            ),
        ];
        for (field, default) in DEFAULTS {
            let place =
                format!("/{}", field.replace("[]", "/0").replace('*', "synPerSource").replace('.', "/"));
            let value = serde_json::from_str(default).ok().filter(|value: &Value| !value.is_f64());
            let value = value.unwrap_or_else(|| default.into());
            let same = bases.iter().filter_map(|(kind, spec)| {
                let mut written = spec.clone();
                write(&mut written, &place, value.clone())?;
                let without = meaning(kind, spec).unwrap_or_else(|problems| panic!("{kind}: {problems:?}"));
                Some(without == meaning(kind, &written).ok()?)
            });
            let same: Vec<bool> = same.collect();
            let said = !UNSAYABLE.contains(&field);
            assert!(same.contains(&true) == said && !same.contains(&false), "{field}: {default}: {same:?}");
        }
    }

    /// Writes a value at a place, and the objects around it that are not there; nothing where an entry is not there, or the value is.
    fn write(spec: &mut Value, place: &str, value: Value) -> Option<()> {
        let mut here = spec;
        for part in place.split('/').skip(1) {
            here = match part.parse::<usize>() {
                Ok(index) => here.get_mut(index)?,
                Err(_) => &mut here[part],
            };
        }
        here.is_null().then(|| *here = value)
    }

    /// What a node is told of an object, and how its list is fetched if it has one.
    fn meaning(kind: &str, spec: &Value) -> Result<(Snapshot, Option<Source>), Vec<Problem>> {
        let object = |kind: &str, name: &str, spec: Value| {
            parse(json!({"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}))
        };
        let this = object(kind, "x", spec.clone())?;
        let source =
            if let Spec::PrefixSet(spec) = &this.spec { spec.source.as_ref().map(Source::of) } else { None };
        let counted = if let Spec::PacketFilter(spec) = &this.spec { spec.counted("x") } else { Vec::new() };
        let chain = include_str!("../../tests/golden/pem/shop.pem");
        let origins = if kind == "OriginGroup" { "x" } else { "o" };
        let mut objects = vec![
            this,
            object("Certificate", "c", json!({"chain": chain}))?,
            object("OriginGroup", "o", json!({"origins": [{"url": "https://o.test"}]}))?,
        ];
        if kind != "Listener" {
            objects.push(object("Listener", "l", json!({"port": 8443}))?);
        }
        if kind != "Route" && kind != "Listener" {
            let route =
                json!({"hostnames": ["shop.example.com"], "originGroup": origins, "certificate": "c"});
            objects.push(object("Route", "s", route)?);
        }
        let nothing = BTreeSet::new();
        let compiled = compile(Input {
            objects: &objects,
            keys: &[Facts::of_chain(chain).unwrap().key].into(),
            internal_ca: "CA",
            rule_ids: &counted.into_iter().zip(1..).collect(),
            removed: &nothing,
            refused: &nothing,
            now: datetime!(2026-06-01 00:00 UTC),
        })?;
        let id = SnapshotId { epoch: 1, revision: 1 };
        Ok((compiled.snapshot_for(&"node".parse().unwrap(), &BTreeMap::new(), id), source))
    }

    #[test]
    fn rules_and_budgets_are_found_by_what_they_are() {
        assert_eq!(of("rule mode.x.mode"), Some("Enforce"));
        assert_eq!(of("budget synPressure.mode"), Some("Enforce"));
        assert_eq!(of("rule a.prefixes"), None);
        assert_eq!(of("tls.expectedName"), None, "it is the host's");
    }
}
