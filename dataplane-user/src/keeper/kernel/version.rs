//! Which kernel this is, and whether the programs are tested on it.

use model::report::Feature;

/// The oldest kernel that the programs are tested on: major and minor.
const OLDEST: (u32, u32) = (6, 1);

/// The running kernel, for the status: off where it is older than those tested. Nothing is refused for it; what does not work
/// is said by itself.
pub fn version() -> Feature {
    of(&rustix::system::uname().release().to_string_lossy())
}

fn of(release: &str) -> Feature {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse().ok());
    let tested = match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) => (major, minor) >= OLDEST,
        _ => false,
    };
    let (major, minor) = OLDEST;
    let detail = if tested {
        format!("Linux {release}")
    } else {
        format!(
            "Linux {release}: the node is tested on {major}.{minor} and newer; what does not work here is said below"
        )
    };
    Feature { name: "kernel".to_owned(), on: tested, detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_as_numbers() {
        for tested in ["6.1.0-56-cloud-amd64", "6.12.117+deb12-cloud-amd64", "7.0", "10.0.1", "6.1-rc2"] {
            assert!(of(tested).on, "{tested}");
        }
        for old in ["5.10.0-8-amd64", "6.0.19", "4.19", "6", ""] {
            assert!(!of(old).on && of(old).detail.contains("6.1"), "{old}");
        }
    }
}
