//! Whether a snapshot may be believed: signature, node, order. Keeper and worker both ask.

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::digest::Digest;
use model::name::Name;
use model::snapshot::{InvalidSnapshot, SignedSnapshot, Snapshot, SnapshotId};

/// What a rotation's signature covers before the new key's 32 bytes.
pub const ROTATION_CONTEXT: &[u8] = b"sallyport snapshot key v1\0";

/// Why a snapshot or a rotation is not believed.
#[derive(Debug, thiserror::Error)]
pub enum Unbelievable {
    /// Not base64, or not the key's signature over these bytes.
    #[error(
        "the snapshot's signature is not by this node's console; enrol the node again if the console was replaced"
    )]
    Signature,
    /// As above, for a new key.
    #[error("the new snapshot key is not signed by the present one")]
    Rotation,
    /// A format this release does not read, or no snapshot at all.
    #[error(transparent)]
    Body(#[from] InvalidSnapshot),
    /// It is another node's.
    #[error("the snapshot is for node {theirs}, this is node {ours}")]
    Node {
        /// The name in the snapshot.
        theirs: Name,
        /// This node's name.
        ours: Name,
    },
    /// Not newer than what is in force.
    #[error(
        "the snapshot (epoch {}, revision {}) is not newer than what is in force (epoch {}, revision {})",
        .offered.epoch, .offered.revision, .current.epoch, .current.revision
    )]
    NotNewer {
        /// The snapshot's place in the order.
        offered: SnapshotId,
        /// What is in force.
        current: SnapshotId,
    },
}

/// Reads a snapshot after checking its signature and that it is for `node`.
///
/// # Errors
/// See [`Unbelievable`].
pub fn verify(signed: &SignedSnapshot, key: &Digest, node: &Name) -> Result<Snapshot, Unbelievable> {
    let signature = STANDARD.decode(&signed.signature).map_err(|_not_base64| Unbelievable::Signature)?;
    UnparsedPublicKey::new(&ED25519, key.as_bytes())
        .verify(&SignedSnapshot::signed_bytes(&signed.body), &signature)
        .map_err(|_unspecified| Unbelievable::Signature)?;
    let snapshot = Snapshot::from_verified_json(&signed.body)?;
    if snapshot.node != *node {
        return Err(Unbelievable::Node { theirs: snapshot.node, ours: node.clone() });
    }
    Ok(snapshot)
}

/// Whether `offered` may follow `current`.
///
/// # Errors
/// [`Unbelievable::NotNewer`].
pub fn newer(offered: SnapshotId, current: Option<SnapshotId>) -> Result<(), Unbelievable> {
    match current {
        Some(current) if offered <= current => Err(Unbelievable::NotNewer { offered, current }),
        _ => Ok(()),
    }
}

/// Checks that the present key signed the new one.
///
/// # Errors
/// [`Unbelievable::Rotation`].
pub fn verify_rotation(new: &Digest, signature: &str, present: &Digest) -> Result<(), Unbelievable> {
    let signature = STANDARD.decode(signature).map_err(|_not_base64| Unbelievable::Rotation)?;
    UnparsedPublicKey::new(&ED25519, present.as_bytes())
        .verify(&[ROTATION_CONTEXT, new.as_bytes()].concat(), &signature)
        .map_err(|_unspecified| Unbelievable::Rotation)
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};

    use super::*;

    fn key() -> (Ed25519KeyPair, Digest) {
        let pair = Ed25519KeyPair::generate().unwrap();
        let text: String = pair.public_key().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        (pair, text.parse().unwrap())
    }

    fn sign(pair: &Ed25519KeyPair, body: &str) -> SignedSnapshot {
        let signature = STANDARD.encode(pair.sign(&SignedSnapshot::signed_bytes(body)));
        SignedSnapshot { body: body.to_owned(), signature }
    }

    fn body(node: &str, format: u32) -> String {
        format!(
            r#"{{"format":{format},"node":"{node}","id":{{"epoch":1,"revision":2}},"listeners":[],"certificates":[],"routes":[],"originGroups":[],"trustBundles":[],"filter":[]}}"#
        )
    }

    #[test]
    fn only_our_console_our_node_our_format() {
        let (pair, public) = key();
        let ours: Name = "edge".parse().unwrap();
        let good = sign(&pair, &body("edge", 1));
        assert_eq!(verify(&good, &public, &ours).unwrap().id, SnapshotId { epoch: 1, revision: 2 });

        let changed = SignedSnapshot { body: good.body.replace('2', "3"), ..good.clone() };
        assert!(matches!(verify(&changed, &public, &ours), Err(Unbelievable::Signature)));
        assert!(matches!(verify(&good, &key().1, &ours), Err(Unbelievable::Signature)));
        let garbled = SignedSnapshot { signature: "!".to_owned(), ..good };
        assert!(matches!(verify(&garbled, &public, &ours), Err(Unbelievable::Signature)));

        let other = sign(&pair, &body("other", 1));
        assert!(matches!(verify(&other, &public, &ours), Err(Unbelievable::Node { .. })));
        let later = verify(&sign(&pair, &body("edge", 2)), &public, &ours).unwrap_err();
        assert!(later.to_string().contains("format 2"), "{later}");
        // Whatever else is in it that this release does not know.
        let unread = sign(&pair, &body("edge", 2).replace("\"filter\"", "\"deny\":[],\"filter\""));
        let unread = verify(&unread, &public, &ours).unwrap_err();
        assert!(unread.to_string().contains("format 2"), "{unread}");
        let unknown = sign(&pair, &body("edge", 1).replace("\"filter\"", "\"deny\":[],\"filter\""));
        let told = |changed: &SignedSnapshot| crate::sentence(&verify(changed, &public, &ours).unwrap_err());
        let newer = told(&unknown);
        assert!(
            newer.contains("the console's is newer: upgrade the node") && newer.contains("`deny`"),
            "{newer}"
        );
        let lacking = sign(&pair, &body("edge", 1).replace(r#","filter":[]"#, ""));
        let older = told(&lacking);
        assert!(
            older.contains("the console's is older: upgrade the console") && older.contains("`filter`"),
            "{older}"
        );
        let odd = told(&sign(&pair, &body("edge", 1).replace("\"routes\":[]", "\"routes\":7")));
        assert!(odd.contains("upgrade the older of the two") && odd.contains("invalid type"), "{odd}");
    }

    #[test]
    fn order_is_epoch_then_revision() {
        let id = |epoch, revision| SnapshotId { epoch, revision };
        assert!(newer(id(1, 1), None).is_ok());
        assert!(newer(id(2, 1), Some(id(1, 9))).is_ok());
        assert!(newer(id(1, 9), Some(id(1, 9))).is_err());
        assert!(newer(id(1, 10), Some(id(2, 1))).is_err());
    }

    #[test]
    fn a_new_key_needs_the_present_ones_signature() {
        let ((present, public), (other, new)) = (key(), key());
        let text = [ROTATION_CONTEXT, new.as_bytes()].concat();
        assert!(verify_rotation(&new, &STANDARD.encode(present.sign(&text)), &public).is_ok());
        assert!(verify_rotation(&new, &STANDARD.encode(other.sign(&text)), &public).is_err());
        assert!(verify_rotation(&new, &STANDARD.encode(present.sign(new.as_bytes())), &public).is_err());
    }
}
