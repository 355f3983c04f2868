//! One keeper an instance, whatever it has in the kernel.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's failure is its report")]

mod support;

use std::os::fd::OwnedFd;

use sallyport_node::keeper::kernel::{Kernel, KernelError, Linux, detach_instance, lock_instance};
use support::rules::{Rules, deny};
use support::{Bpffs, Wire};

/// A node without a listener and without an interface: nothing of it stands in the kernel but pins.
fn resting(bpffs: &Bpffs, wire: &Wire) -> Linux {
    let mut kernel = wire.left.inside(|| Linux::open(bpffs.config(&[])).unwrap());
    let plan = Rules { rules: vec![deny(9, &["192.0.2.1/32"])], ..Rules::default() }.plan();
    wire.left.inside(|| kernel.apply(&plan).unwrap());
    assert_eq!(std::fs::read_dir(bpffs.root().join("test/links")).unwrap().count(), 0);
    kernel
}

fn lock_of(kernel: &Linux) -> OwnedFd {
    kernel.lock().unwrap().try_clone_to_owned().unwrap()
}

#[track_caller]
fn refused(opened: Result<Linux, KernelError>) {
    let error = opened.map(drop).unwrap_err();
    assert!(matches!(error, KernelError::InUse { .. }), "{error}");
    let words = error.to_string();
    for part in ["the instance test", &format!("(process {})", std::process::id()), "/sallyport/test:"] {
        assert!(words.contains(part), "{part}: {words}");
    }
}

#[test]
fn an_instance_is_one_keepers_whatever_it_has_in_the_kernel() {
    let (bpffs, wire) = (Bpffs::new(), Wire::new());
    let open = || Linux::open(bpffs.config(&["wire0"]));
    let kernel = resting(&bpffs, &wire);
    let noted = || std::fs::read_dir(bpffs.root().join("test/namespace")).unwrap().next().unwrap().unwrap();
    let note = noted().file_name();
    // The second may be in the same network namespace or another, and changes nothing.
    for namespace in [&wire.left, &wire.right] {
        refused(namespace.inside(open));
    }
    assert_eq!(noted().file_name(), note);
    assert!(matches!(lock_instance(&bpffs.root(), "test"), Err(KernelError::InUse { .. })));
    assert!(lock_instance(&bpffs.root(), "other").unwrap().is_none());

    // A keeper that died has it no more, and one that becomes its next release all the time.
    drop(kernel);
    let kernel = wire.left.inside(open).unwrap();
    let lock = lock_of(&kernel);
    drop(kernel);
    refused(wire.left.inside(open));
    let mut kernel = wire.left.inside(|| Linux::inherit(bpffs.config(&["wire0"]), Some(lock))).unwrap();
    refused(wire.left.inside(open));
    // Nor has one that has stopped.
    kernel.detach().unwrap();
    let _next = wire.left.inside(open).unwrap();
}

/// Whose instance was detached by force leaves the next one alone.
#[test]
fn an_instance_that_was_made_anew_is_the_next_keepers() {
    let (bpffs, wire) = (Bpffs::new(), Wire::new());
    let mut former = wire.left.inside(|| Linux::open(bpffs.config(&["wire0"])).unwrap());
    let lock = lock_of(&former);
    detach_instance(&bpffs.root(), "test").unwrap();
    let next = wire.left.inside(|| Linux::open(bpffs.config(&["wire0"])).unwrap());
    let links = || {
        let pins = sallyport_node::keeper::kernel::pins(&bpffs.root(), "test").unwrap();
        let link = |pin: &sallyport_node::keeper::kernel::Pin| pin.path.parent().unwrap().ends_with("links");
        pins.into_iter().filter(link).collect::<Vec<_>>()
    };
    let before = links();
    assert_eq!(before.len(), 2, "{before:?}");
    let plan = Rules { listeners: vec![(None, 443)], ..Rules::default() }.plan();
    wire.left.inside(|| former.look());
    wire.left.inside(|| former.apply(&plan).unwrap());
    let features = former.features();
    let gone = |name: &str| {
        let feature = features.iter().find(|feature| feature.name == name).unwrap();
        assert!(!feature.on && feature.detail.contains("was removed while the node runs"), "{feature:?}");
    };
    gone("xdp:wire0");
    gone("sk_lookup");
    former.detach().unwrap();
    drop(former);
    assert_eq!(links(), before, "they are the next keeper's");
    // A lock of what is gone is none.
    refused(wire.left.inside(|| Linux::inherit(bpffs.config(&["wire0"]), Some(lock))));
    drop(next);
}
