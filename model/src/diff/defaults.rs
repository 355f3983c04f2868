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
    use super::*;

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

    #[test]
    fn rules_and_budgets_are_found_by_what_they_are() {
        assert_eq!(of("rule mode.x.mode"), Some("Enforce"));
        assert_eq!(of("budget synPressure.mode"), Some("Enforce"));
        assert_eq!(of("rule a.prefixes"), None);
        assert_eq!(of("tls.expectedName"), None, "it is the host's");
    }
}
