use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sallyport-state-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn token(key: &Ed25519KeyPair, secret: &str) -> (EnrolmentToken, Digest) {
    let hex: String = key.public_key().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let token = EnrolmentToken {
        console: "127.0.0.1:9444".to_owned(),
        node: "edge".parse().unwrap(),
        ca: Digest::of(b"ca"),
        snapshot_key: hex.parse().unwrap(),
        secret: secret.to_owned(),
    };
    (token, Digest::of(secret.as_bytes()))
}

fn stored(key: &Ed25519KeyPair, revision: u64) -> Stored {
    let body = format!(
        r#"{{"format":1,"node":"edge","id":{{"epoch":1,"revision":{revision}}},"listeners":[],"certificates":[{{"name":"c","chain":"","key":"{}","hostnames":[]}}],"routes":[],"originGroups":[],"trustBundles":[],"filter":[]}}"#,
        Digest::of(&revision.to_be_bytes()),
    );
    Stored { snapshot: Snapshot::from_verified_json(&body).unwrap(), signed: sign(key, body) }
}

fn sign(key: &Ed25519KeyPair, body: String) -> SignedSnapshot {
    let signature = STANDARD.encode(key.sign(&SignedSnapshot::signed_bytes(&body)));
    SignedSnapshot { body, signature }
}

#[test]
fn a_snapshot_survives_and_a_staged_one_does_not() {
    let (scratch, key) = (Scratch::new("survive"), Ed25519KeyPair::generate().unwrap());
    let mut state = State::open(&scratch.0, Some(token(&key, "one")), None).unwrap();
    assert!(state.stored().is_none());
    let first = stored(&key, 1);
    let keys = BTreeMap::from([(Digest::of(&1u64.to_be_bytes()), Sealed("sealed".to_owned()))]);
    state.store_keys(&keys, &first.snapshot).unwrap();
    let staged = state.stage(&first.signed).unwrap();
    state.commit(staged, first.clone()).unwrap();
    drop(state.stage(&stored(&key, 2).signed).unwrap());
    drop(state);

    let mut state = State::open(&scratch.0, None, None).unwrap();
    assert_eq!(state.stored().unwrap().snapshot, first.snapshot);
    assert_eq!(state.secrets().unwrap().keys, keys);
    assert!(matches!(state.store_keys(&keys, &stored(&key, 2).snapshot), Err(StateError::Stray(_))));
    let staged = state.stage(&stored(&key, 2).signed).unwrap();
    state.commit(staged, stored(&key, 2)).unwrap();
    assert!(state.keys.names().unwrap().is_empty(), "keys of revision 1 are forgotten");
}

#[test]
fn one_keeper_per_directory() {
    let scratch = Scratch::new("lock");
    let first = State::open(&scratch.0, None, None).unwrap();
    let second = State::open(&scratch.0, None, None).unwrap_err();
    assert!(second.to_string().contains("another sallyport-node"), "{second}");
    drop(first);
    State::open(&scratch.0, None, None).unwrap();
}

#[test]
fn a_token_is_used_once_and_a_new_one_replaces_the_identity() {
    let (scratch, key) = (Scratch::new("token"), Ed25519KeyPair::generate().unwrap());
    let mut state = State::open(&scratch.0, Some(token(&key, "one")), None).unwrap();
    assert_eq!(state.secrets().unwrap().enrolment.as_deref(), Some("one"));
    state.store_node(&Sealed("certificate".to_owned())).unwrap();
    assert_eq!(state.secrets().unwrap().enrolment, None);
    drop(state);
    let state = State::open(&scratch.0, Some(token(&key, "one")), None).unwrap();
    assert_eq!(state.secrets().unwrap().enrolment, None);
    assert!(state.secrets().unwrap().node.is_some());
    drop(state);
    let state = State::open(&scratch.0, Some(token(&key, "two")), None).unwrap();
    assert_eq!(state.secrets().unwrap().enrolment.as_deref(), Some("two"));
    assert!(state.secrets().unwrap().node.is_none());
}

#[test]
fn a_foreign_or_damaged_snapshot_is_left_aside_and_rotation_keeps_ours() {
    let (scratch, key) = (Scratch::new("foreign"), Ed25519KeyPair::generate().unwrap());
    let mut state = State::open(&scratch.0, Some(token(&key, "one")), None).unwrap();
    let staged = state.stage(&stored(&key, 1).signed).unwrap();
    state.commit(staged, stored(&key, 1)).unwrap();
    let new = Ed25519KeyPair::generate().unwrap();
    state.rotate(token(&new, "").0.snapshot_key).unwrap();
    drop(state);
    let mut state = State::open(&scratch.0, None, None).unwrap();
    assert!(state.stored().is_some(), "signed by the key before the rotation");
    state.rotate(token(&Ed25519KeyPair::generate().unwrap(), "").0.snapshot_key).unwrap();
    drop(state);
    assert!(State::open(&scratch.0, None, None).unwrap().stored().is_some());
    let other = Ed25519KeyPair::generate().unwrap();
    let foreign = serde_json::to_vec(&stored(&other, 2).signed).unwrap();
    std::fs::write(scratch.0.join(SNAPSHOT), foreign).unwrap();
    let why = || {
        let state = State::open(&scratch.0, None, None).unwrap();
        assert!(state.stored().is_none());
        crate::sentence(state.left_aside().unwrap())
    };
    assert!(why().contains("snapshot.json") && why().contains("signature"), "{}", why());
    let body = stored(&key, 2).signed.body.replace("\"format\":1", "\"format\":2");
    std::fs::write(scratch.0.join(SNAPSHOT), serde_json::to_vec(&sign(&key, body)).unwrap()).unwrap();
    assert!(why().contains("format 2"), "signed with the former key: {}", why());
    std::fs::write(scratch.0.join(SNAPSHOT), b"{").unwrap();
    assert!(why().contains("damaged"), "{}", why());
    let mut state = State::open(&scratch.0, None, None).unwrap();
    let staged = state.stage(&stored(&key, 3).signed).unwrap();
    state.commit(staged, stored(&key, 3)).unwrap();
    assert!(state.left_aside().is_none());
    drop(state);
    std::fs::write(scratch.0.join(IDENTITY), b"{").unwrap();
    assert!(matches!(State::open(&scratch.0, None, None), Err(StateError::Corrupt { .. })));
}
