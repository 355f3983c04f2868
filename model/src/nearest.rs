//! "Did you mean": the known word nearest to a misspelt one.

/// The candidate within a third of the word's length in single-letter mistakes, case aside; the first of equals.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Comparing costs length times length; nobody misspells a name into this.
    if word.len() > 100 {
        return None;
    }
    let word: Vec<char> = word.to_lowercase().chars().collect();
    let bound = (word.len() / 3).max(1);
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates {
        // Every letter more or less is a mistake of its own. (Bytes are at least letters, at most four times as many.)
        if candidate.len() > 4 * (word.len() + bound) {
            continue;
        }
        let other: Vec<char> = candidate.to_lowercase().chars().collect();
        if other.len().abs_diff(word.len()) > bound {
            continue;
        }
        let distance = distance(&word, &other, bound);
        if distance <= bound && best.is_none_or(|(present, _)| distance < present) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// `; did you mean X?`, or what `otherwise` says.
pub fn did_you_mean<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
    otherwise: impl FnOnce() -> String,
) -> String {
    match nearest(word, candidates) {
        Some(known) => format!("did you mean `{known}`?"),
        None => otherwise(),
    }
}

/// Insertions, deletions, replacements and swaps of neighbours (optimal string alignment); anything above `bound` is
/// `bound + 1`.
fn distance(a: &[char], b: &[char], bound: usize) -> usize {
    let mut before = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    let mut row = before.clone();
    for (i, x) in a.iter().enumerate() {
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let mut cost = (last[j] + usize::from(x != y)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                cost = cost.min(before[j - 1] + 1);
            }
            row[j + 1] = cost;
        }
        // No later row is below the smallest of two neighbouring ones.
        if row.iter().chain(&last).min().is_some_and(|least| *least > bound) {
            return bound + 1;
        }
        std::mem::swap(&mut before, &mut last);
        std::mem::swap(&mut last, &mut row);
    }
    last.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant() {
        let known = ["url", "listeners", "hostnames", "originGroup"];
        for (word, expected) in [
            ("urll", Some("url")),
            ("ulr", Some("url")),
            ("listener", Some("listeners")),
            ("hostname", Some("hostnames")),
            ("origingroup", Some("originGroup")),
            ("origin-group", Some("originGroup")),
            ("certificate", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
    }
}
