//! As whom the console runs when root starts it.

use std::path::Path;

use super::UpError;

/// Whoever has no user of its own.
const SHARED: &str = "nobody";

/// A user of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl User {
    /// The caller of sudo, else the user `sallyport`, else `nobody`.
    pub(super) fn for_console() -> Result<Self, UpError> {
        let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
        if let (Some(uid @ 1..), Some(gid)) = (number("SUDO_UID"), number("SUDO_GID")) {
            let name = std::env::var("SUDO_USER").unwrap_or_else(|_| uid.to_string());
            return Ok(Self { name, uid, gid });
        }
        let passwd = std::fs::read_to_string("/etc/passwd").map_err(UpError::io("read /etc/passwd"))?;
        let missing = || {
            UpError::io("choose a user for the console")(std::io::Error::other(
                "neither sallyport nor nobody exists",
            ))
        };
        find(&passwd, "sallyport").or_else(|| find(&passwd, SHARED)).ok_or_else(missing)
    }

    /// What to say of a user that is not the console's alone.
    pub(super) fn warning(&self, state_dir: &Path) -> Option<String> {
        let console = state_dir.join("console");
        (self.name == SHARED).then(|| {
            format!(
                "  WARNING: there is no user sallyport, so every service that runs as {SHARED} can read the console's keys and passwords. Make one\n  \
                 and start again:\n    useradd --system --no-create-home --shell /usr/sbin/nologin sallyport && chown -hR sallyport: {}",
                console.display()
            )
        })
    }
}

/// An entry of passwd(5).
fn find(passwd: &str, name: &str) -> Option<User> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next()? == name;
        let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        found.then(|| User { name: name.to_owned(), uid, gid })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_an_entry_by_its_whole_name() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nnobody2:x:1:1::/:/bin/false\nnobody:x:65534:65533:nobody:/:/usr/sbin/nologin\n";
        assert_eq!(find(passwd, "nobody"), Some(User { name: "nobody".to_owned(), uid: 65534, gid: 65533 }));
        assert_eq!(find(passwd, "sallyport"), None);
        // Who else is nobody may read what is the console's.
        let warning = |name| find(passwd, name).and_then(|user| user.warning(Path::new("/state")));
        let said = warning("nobody").unwrap();
        assert!(
            said.contains("useradd --system") && said.contains("chown -hR sallyport: /state/console"),
            "{said}"
        );
        assert_eq!(warning("nobody2"), None);
    }
}
