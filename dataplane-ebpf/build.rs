//! With the feature `object`: checks that the committed object was built from these sources, or takes a packager's own.
//!
//! The check compares what `object/manifest` lists: the object's hash, every source's, and the lock file's entries the
//! object is made of. It needs no BPF toolchain, so `cargo build` works with stable Rust alone.

fn main() {
    #[cfg(feature = "object")]
    object::provide();
}

#[cfg(feature = "object")]
mod object {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};
    use std::process::exit;
    use std::{env, fs};

    use sha2::{Digest, Sha256};

    const OWN: &str = "SALLYPORT_BPF_OBJECT";
    const OBJECT: &str = "object/sallyport-bpf.o";
    const MANIFEST: &str = "object/manifest";

    pub(super) fn provide() {
        let root = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
        println!("cargo::rerun-if-env-changed={OWN}");
        for watched in ["build.rs", "object", "src", "Cargo.toml", "build-object", "../Cargo.lock"] {
            println!("cargo::rerun-if-changed={watched}");
        }
        let object = match env::var_os(OWN) {
            Some(own) => PathBuf::from(own),
            None => {
                if let Err(mismatch) = check(&root) {
                    refuse(&format!(
                        "{mismatch}; run dataplane-ebpf/build-object and commit dataplane-ebpf/object"
                    ));
                }
                root.join(OBJECT)
            }
        };
        let bytes = read(&object);
        if !bytes.starts_with(b"\x7fELF") {
            refuse(&format!("{} is no ELF object", object.display()));
        }
        let copy = PathBuf::from(variable("OUT_DIR")).join("sallyport-bpf.o");
        if let Err(error) = fs::write(&copy, bytes) {
            refuse(&format!("cannot write {}: {error}", copy.display()));
        }
    }

    /// Says what differs, if anything does.
    fn check(root: &Path) -> Result<(), String> {
        let manifest = text(&root.join(MANIFEST));
        let lock = text(&root.join("../Cargo.lock"));
        let mut listed = BTreeSet::new();
        for line in manifest.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["object", hash] if hash == sha256(&root.join(OBJECT)) => {}
                ["object", _] => return Err(format!("{OBJECT} is not the one {MANIFEST} names")),
                ["source", hash, file] if hash == sha256(&root.join(file)) => {
                    listed.insert(PathBuf::from(file));
                }
                ["source", _, file] => return Err(format!("{file} changed since {OBJECT} was built")),
                ["lock", name, version, checksum] if locked(&lock, name, version, checksum) => {}
                ["lock", name, ..] => {
                    return Err(format!("Cargo.lock's {name} changed since {OBJECT} was built"));
                }
                ["toolchain", ..] => {}
                _ => return Err(format!("{MANIFEST} has a line that means nothing: {line}")),
            }
        }
        let mut present = BTreeSet::from([PathBuf::from("Cargo.toml"), PathBuf::from("build-object")]);
        sources(root, Path::new("src"), &mut present);
        match present.symmetric_difference(&listed).next() {
            Some(file) => Err(format!("{} was added or removed since {OBJECT} was built", file.display())),
            None => Ok(()),
        }
    }

    fn locked(lock: &str, name: &str, version: &str, checksum: &str) -> bool {
        let has = |entry: &str, key: &str, value: &str| {
            entry.lines().any(|line| line == format!("{key} = \"{value}\""))
        };
        lock.split("[[package]]").any(|entry| {
            has(entry, "name", name) && has(entry, "version", version) && has(entry, "checksum", checksum)
        })
    }

    fn sources(root: &Path, below: &Path, found: &mut BTreeSet<PathBuf>) {
        let entries = fs::read_dir(root.join(below))
            .unwrap_or_else(|error| refuse(&format!("{}: {error}", below.display())));
        for entry in entries.flatten() {
            let path = below.join(entry.file_name());
            if entry.path().is_dir() {
                sources(root, &path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.insert(path);
            }
        }
    }

    /// Empty for a file that is not there, which no manifest names.
    fn sha256(file: &Path) -> String {
        let Ok(bytes) = fs::read(file) else { return String::new() };
        Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn read(file: &Path) -> Vec<u8> {
        fs::read(file).unwrap_or_else(|error| refuse(&format!("cannot read {}: {error}", file.display())))
    }

    fn text(file: &Path) -> String {
        String::from_utf8_lossy(&read(file)).into_owned()
    }

    fn variable(name: &str) -> String {
        env::var(name).unwrap_or_else(|error| refuse(&format!("{name}: {error}")))
    }

    fn refuse(why: &str) -> ! {
        println!("cargo::error={why}");
        exit(1)
    }
}
