use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::time::Instant;

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

/// The same on trial.
fn on_trial(key: &Ed25519KeyPair, revision: u64, trial_ms: u32) -> Stored {
    let mut snapshot = stored(key, revision).snapshot;
    snapshot.trial_ms = Some(trial_ms);
    Stored { signed: sign(key, snapshot.to_canonical_json().unwrap()), snapshot }
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
    let staged = state.stage(&first).unwrap();
    state.commit(staged, first.clone()).unwrap();
    drop(state.stage(&stored(&key, 2)).unwrap());
    drop(state);

    let mut state = State::open(&scratch.0, None, None).unwrap();
    assert_eq!(state.stored().unwrap().snapshot, first.snapshot);
    assert_eq!(state.secrets().unwrap().keys, keys);
    assert!(matches!(state.store_keys(&keys, &stored(&key, 2).snapshot), Err(StateError::Stray(_))));
    let staged = state.stage(&stored(&key, 2)).unwrap();
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
    let staged = state.stage(&stored(&key, 1)).unwrap();
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
    let staged = state.stage(&stored(&key, 3)).unwrap();
    state.commit(staged, stored(&key, 3)).unwrap();
    assert!(state.left_aside().is_none());
    drop(state);
    std::fs::write(scratch.0.join(IDENTITY), b"{").unwrap();
    assert!(matches!(State::open(&scratch.0, None, None), Err(StateError::Corrupt { .. })));
}

/// A state in which revision 1 was confirmed, and its directory.
fn confirmed(name: &str) -> (Scratch, Ed25519KeyPair, State) {
    let (scratch, key) = (Scratch::new(name), Ed25519KeyPair::generate().unwrap());
    let mut state = State::open(&scratch.0, Some(token(&key, "one")), None).unwrap();
    let first = stored(&key, 1);
    let keys = BTreeMap::from([(first.snapshot.certificates[0].key, Sealed("sealed".to_owned()))]);
    state.store_keys(&keys, &first.snapshot).unwrap();
    put(&mut state, first);
    (scratch, key, state)
}

fn put(state: &mut State, stored: Stored) {
    let staged = state.stage(&stored).unwrap();
    state.commit(staged, stored).unwrap();
}

fn seconds_left(state: &State) -> u64 {
    state.trial().unwrap().left(Instant::now()).as_secs()
}

/// Stored, on trial, and gone back from.
fn how(state: &State) -> (Option<u64>, bool, Option<u64>) {
    let stored = state.stored().map(|stored| stored.snapshot.id.revision);
    (stored, state.trial().is_some(), state.gone_back().map(|id| id.revision))
}

fn open(scratch: &Scratch) -> State {
    State::open(&scratch.0, None, None).unwrap()
}

/// What `trial.json` says.
fn record(scratch: &Scratch, until_ms: i64, gone_back: bool) {
    let json = format!(r#"{{"id":{{"epoch":1,"revision":2}},"untilMs":{until_ms},"goneBack":{gone_back}}}"#);
    std::fs::write(scratch.0.join("trial.json"), json).unwrap();
}

fn files(scratch: &Scratch) -> [bool; 2] {
    ["confirmed.json", "trial.json"].map(|name| scratch.0.join(name).exists())
}

#[test]
fn what_nobody_confirms_gives_way_to_what_was_confirmed_keys_and_all() {
    let (scratch, key, mut state) = confirmed("back");
    assert!(state.go_back().is_none() && files(&scratch) == [false, false]);
    put(&mut state, on_trial(&key, 2, 5000));
    assert_eq!(how(&state), (Some(2), true, None));
    assert_eq!(state.trial().unwrap().back().unwrap().revision, 1);
    assert!((18..=20).contains(&seconds_left(&state)), "the trial and fifteen seconds");
    state.go_back().unwrap().unwrap();
    assert_eq!(how(&state), (Some(1), false, Some(2)));
    assert_eq!(state.secrets().unwrap().keys.len(), 1);
    drop(state);
    let mut state = open(&scratch);
    assert_eq!((how(&state), files(&scratch)), ((Some(1), false, Some(2)), [false, true]));
    assert_eq!(state.secrets().unwrap().keys.len(), 1);
    // It was confirmed after all.
    put(&mut state, stored(&key, 2));
    assert_eq!((how(&state), files(&scratch)), ((Some(2), false, None), [false, false]));
    assert_eq!(how(&open_again(state, &scratch)), (Some(2), false, None));
}

fn open_again(state: State, scratch: &Scratch) -> State {
    drop(state);
    open(scratch)
}

#[test]
fn a_restart_in_the_middle_goes_on_and_one_behind_the_end_goes_back() {
    let (scratch, key, mut state) = confirmed("middle");
    put(&mut state, on_trial(&key, 2, 5000));
    let mut state = open_again(state, &scratch);
    assert_eq!((how(&state), state.trial().unwrap().back().unwrap().revision), ((Some(2), true, None), 1));
    assert!((17..=20).contains(&seconds_left(&state)));
    // A wall clock that was set back gives no more time than there was.
    record(&scratch, i64::MAX, false);
    state = open_again(state, &scratch);
    assert!((17..=20).contains(&seconds_left(&state)));
    record(&scratch, 0, false);
    state = open_again(state, &scratch);
    assert_eq!((how(&state), state.secrets().unwrap().keys.len()), ((Some(1), false, Some(2)), 1));
    // A time that cannot be read is over.
    put(&mut state, on_trial(&key, 3, 5000));
    assert_eq!(how(&state), (Some(3), true, Some(2)));
    std::fs::write(scratch.0.join("trial.json"), b"{").unwrap();
    state = open_again(state, &scratch);
    assert_eq!(how(&state), (Some(1), false, Some(3)));
}

#[test]
fn a_crash_between_two_files_leaves_the_old_snapshot_as_it_was() {
    let (scratch, key, state) = confirmed("crash");
    let staged = state.stage(&on_trial(&key, 2, 5000)).unwrap();
    state.commit_trial(staged.trial.unwrap()).unwrap();
    drop(staged.snapshot);
    let mut state = open_again(state, &scratch);
    assert_eq!((how(&state), files(&scratch)), ((Some(1), false, None), [true, true]));
    put(&mut state, on_trial(&key, 2, 5000));
    // The same objects under a new number.
    let staged = state.stage(&on_trial(&key, 3, 4000)).unwrap();
    state.commit_trial(staged.trial.unwrap()).unwrap();
    drop(staged.snapshot);
    let state = open_again(state, &scratch);
    assert_eq!((how(&state), state.trial().unwrap().back().unwrap().revision), ((Some(2), true, None), 1));
}

#[test]
fn a_trial_takes_its_own_time_and_goes_back_to_what_was_confirmed_last() {
    let (scratch, key, mut state) = confirmed("time");
    put(&mut state, on_trial(&key, 2, 5000));
    put(&mut state, on_trial(&key, 2, 3_600_000));
    assert!(seconds_left(&state) <= 20, "told again it is not longer");
    put(&mut state, on_trial(&key, 3, 60_000));
    assert!((70..=75).contains(&seconds_left(&state)));
    let mut state = open_again(state, &scratch);
    assert!((70..=75).contains(&seconds_left(&state)));
    assert_eq!(state.trial().unwrap().back().unwrap().revision, 1);
    put(&mut state, stored(&key, 3));
    assert_eq!((how(&state), files(&scratch)), ((Some(3), false, None), [false, false]));
    assert!(state.keys.names().unwrap().is_empty(), "keys of revision 1 are forgotten by now");
}

#[test]
fn a_node_that_had_nothing_goes_back_to_nothing_and_a_new_token_begins_anew() {
    let (scratch, key) = (Scratch::new("nothing"), Ed25519KeyPair::generate().unwrap());
    let mut state = State::open(&scratch.0, Some(token(&key, "one")), None).unwrap();
    put(&mut state, on_trial(&key, 2, 5000));
    assert_eq!((how(&state), state.trial().unwrap().back()), ((Some(2), true, None), None));
    state.go_back().unwrap().unwrap();
    let state = open_again(state, &scratch);
    assert_eq!(how(&state), (None, false, Some(2)));
    drop(state);
    let state = State::open(&scratch.0, Some(token(&key, "two")), None).unwrap();
    assert_eq!((how(&state), files(&scratch)), ((None, false, None), [false, false]));
}

#[test]
fn of_a_revision_between_the_two_the_number_stays_known() {
    let (scratch, key, mut state) = confirmed("between");
    put(&mut state, on_trial(&key, 9, 5000));
    state.go_back().unwrap().unwrap();
    put(&mut state, stored(&key, 4));
    assert_eq!(how(&open_again(state, &scratch)), (Some(4), false, Some(9)));
}
