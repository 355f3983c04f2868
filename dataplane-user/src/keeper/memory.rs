//! What the machine lets the node have: the limits of its control group (cgroup v2) and of those above it.

use std::fs;
use std::path::Path;

/// Where control groups are.
const GROUPS: &str = "/sys/fs/cgroup";

/// The smallest of them, bytes; none where there is none, or no cgroup v2.
pub fn of_own_group() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    below(Path::new(GROUPS), own(&text)?)
}

/// The group of a process, below the root (cgroups(7)).
fn own(text: &str) -> Option<&Path> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(Path::new(path))
}

fn below(root: &Path, group: &Path) -> Option<u64> {
    let files = group.ancestors().map(|group| root.join(group).join("memory.max"));
    // `max` is no number.
    files.filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok()).min()
}

/// Why a text is no size.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a size is a number of bytes, or one with K, M or G (of 1,024 each) behind it: 512M")]
pub struct InvalidSize;

/// Reads a size.
///
/// # Errors
/// See [`InvalidSize`].
pub fn parse_size(text: &str) -> Result<u64, InvalidSize> {
    let (number, unit) = match text.char_indices().last() {
        Some((at, 'K' | 'k')) => (text.get(..at), 1 << 10),
        Some((at, 'M' | 'm')) => (text.get(..at), 1 << 20),
        Some((at, 'G' | 'g')) => (text.get(..at), 1 << 30),
        _ => (Some(text), 1_u64),
    };
    let digits = number.filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
    let number: Option<u64> = digits.and_then(|digits| digits.parse().ok());
    number.and_then(|number| number.checked_mul(unit)).filter(|size| *size > 0).ok_or(InvalidSize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        for (text, size) in [("1", 1), ("512M", 512 << 20), ("2g", 2 << 30), ("64k", 64 << 10)] {
            assert_eq!(parse_size(text), Ok(size), "{text}");
        }
        for text in
            ["", "M", "0", "-1", "+1", "1.5G", "1 G", "1T", "99999999999999999999", "17179869184G", "1é"]
        {
            assert_eq!(parse_size(text), Err(InvalidSize), "{text}");
        }
    }

    #[test]
    fn the_smallest_limit_on_the_way_up_counts() {
        let root = std::env::temp_dir().join(format!("sallyport-memory-{}", std::process::id()));
        let group = own("12:memory:/other\n0::/system.slice/sallyport.service\n").unwrap();
        assert_eq!(below(&root, group), None, "none says anything");
        fs::create_dir_all(root.join(group)).unwrap();
        let write = |group: &str, text: &str| {
            fs::write(root.join(group).join("memory.max"), text).unwrap();
        };
        write("system.slice/sallyport.service", "max\n");
        assert_eq!(below(&root, group), None);
        write("system.slice", "1073741824\n");
        assert_eq!(below(&root, group), Some(1 << 30));
        write("system.slice/sallyport.service", "536870912\n");
        write("", "2147483648\n");
        assert_eq!(below(&root, group), Some(1 << 29));
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(own("4:memory:/x\n"), None, "cgroup v1");
    }
}
