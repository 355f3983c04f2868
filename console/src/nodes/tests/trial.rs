//! What a node is offered while a revision waits for its confirmation, and afterwards.

use super::*;
use crate::ops::{Changes, Connection};

const WAITS: Duration = Duration::from_secs(600);

/// A console whose revision 2 waits to be confirmed.
async fn waiting() -> (Console, Identity) {
    let console = console().await;
    publish(&console.ops, shop()).await.unwrap();
    let identity = console.enrol("n1").await;
    let options = PublishOptions { rollback_after: Some(WAITS), ..PublishOptions::default() };
    let second = object("Listener", "two", json!({ "port": 9000 }));
    console.ops.publish(Changes::put(second), &operator(), options).await.unwrap();
    (console, identity)
}

fn id(revision: u64) -> SnapshotId {
    SnapshotId { epoch: 1, revision }
}

async fn confirm(ops: &Ops, revision: u64) {
    let newcomer = Actor { connection: Some(Connection::accepted()), ..operator() };
    ops.confirm(revision, &newcomer).await.unwrap();
}

#[tokio::test]
async fn it_says_how_long_it_waits_and_comes_again_when_it_is_confirmed() {
    let (console, identity) = waiting().await;
    let mut link = Link::open(&console, &identity, Some(id(1))).await;
    let first = link.snapshot(&console.ops).await;
    let left = Duration::from_millis(first.trial_ms.unwrap().into());
    assert!(first.id == id(2) && left <= WAITS && left > WAITS - Duration::from_secs(60), "{left:?}");
    link.tell(&NodeMessage::Applied { id: id(2), took_ms: 1 }).await;
    until(async || console.ops.nodes().await.unwrap()[0].applied == Some(id(2))).await;
    // Who comes back, and says what it would go back to, hears of it with what is left of the time.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut link = Link::open(&console, &identity, Some(id(1))).await;
    let again = link.snapshot(&console.ops).await;
    assert!(again.trial_ms < first.trial_ms && again.is_same_but_for_trial(&first));

    confirm(&console.ops, 2).await;
    let confirmed = link.snapshot(&console.ops).await;
    assert!(confirmed.trial_ms.is_none() && confirmed.is_same_but_for_trial(&first));
    link.tell(&NodeMessage::Applied { id: id(2), took_ms: 1 }).await;
    // Nothing more of it comes; the next revision does, and says nothing of trials.
    publish(&console.ops, vec![object("Listener", "two", json!({ "port": 9001 }))]).await.unwrap();
    let third = link.snapshot(&console.ops).await;
    assert_eq!((third.id, third.trial_ms), (id(3), None));
}

#[tokio::test]
async fn a_node_that_was_away_hears_that_it_was_confirmed_or_rolled_back() {
    let (console, identity) = waiting().await;
    confirm(&console.ops, 2).await;
    // It still has it on trial, or has gone back: it says revision 1 either way.
    let mut link = Link::open(&console, &identity, Some(id(1))).await;
    let confirmed = link.snapshot(&console.ops).await;
    assert_eq!((confirmed.id, confirmed.trial_ms), (id(2), None));

    let (console, identity) = waiting().await;
    let mut link = Link::open(&console, &identity, Some(id(1))).await;
    assert!(link.snapshot(&console.ops).await.trial_ms.is_some());
    console.ops.roll_back_unconfirmed(clock::now() + WAITS).await.unwrap();
    let back = link.snapshot(&console.ops).await;
    assert_eq!((back.id, back.trial_ms, back.listeners.len()), (id(3), None, 1));
    // What the node says of having gone back is kept with the revision, and is no longer what the node lacks.
    let reason = "nobody confirmed it in time".to_owned();
    link.tell(&NodeMessage::Refused { id: id(2), reason }).await;
    link.tell(&NodeMessage::Applied { id: id(3), took_ms: 1 }).await;
    until(async || console.ops.nodes().await.unwrap()[0].applied == Some(id(3))).await;
    assert!(console.ops.nodes().await.unwrap()[0].refused.is_none());
    let told = console.ops.revision(2).await.unwrap().unwrap().nodes[0].refused.clone();
    assert_eq!(told.as_deref(), Some("nobody confirmed it in time"));
}

/// After a restart, and under a new number for the same objects, it waits as long as before and no longer.
#[tokio::test]
async fn it_goes_on_waiting_over_a_restart_and_under_a_new_number() {
    let (console, identity) = waiting().await;
    let ops = console.directory.open().await;
    let (address, _stop) = serve_nodes(&ops).await;
    let restarted = Console { ops, address, directory: Directory::new(), _stop };
    let mut link = Link::open(&restarted, &identity, Some(id(1))).await;
    let first = link.snapshot(&restarted.ops).await;
    assert!(first.trial_ms.is_some_and(|left| u128::from(left) < WAITS.as_millis()));
    restarted.ops.renumber("other labels".to_owned()).await.unwrap();
    let renumbered = link.snapshot(&restarted.ops).await;
    assert_eq!(renumbered.id, id(3));
    assert!(renumbered.trial_ms.is_some() && renumbered.trial_ms <= first.trial_ms);
    confirm(&restarted.ops, 3).await;
    assert_eq!(link.snapshot(&restarted.ops).await.trial_ms, None);
}
