use serde_json::json;
use time::OffsetDateTime;
use tokio::task::JoinHandle;

use super::*;
use crate::ops::{Actor, Changes, Ops};
use crate::testing::{Directory, object, operator, publish, shop};

fn code(error: OpsError) -> Code {
    let OpsError::Problems(problems) = error else { panic!("{error}") };
    problems[0].code
}

#[test]
fn only_a_connection_from_after_the_publication_may() {
    let (before, unconfirmed) = (Connection::accepted(), Unconfirmed::default());
    assert!(
        unconfirmed.may_confirm(7, Some(&before)),
        "the process that published is gone, and its connections"
    );
    unconfirmed.begin(7);
    assert!(!unconfirmed.may_confirm(7, Some(&Connection::accepted())), "it is not in force yet");
    unconfirmed.published(7);
    assert!(!unconfirmed.may_confirm(7, Some(&before)));
    assert!(!unconfirmed.may_confirm(7, None));
    assert!(unconfirmed.may_confirm(7, Some(&Connection::accepted())));
}

/// A revision for a trial, and when that is over.
async fn over(ops: &Ops) -> (u64, OffsetDateTime) {
    publish(ops, shop()).await.unwrap();
    let try_it =
        PublishOptions { rollback_after: Some(Duration::from_secs(60)), ..PublishOptions::default() };
    let second = Changes::put(object("Listener", "second", json!({ "port": 9000 })));
    let published = ops.publish(second, &operator(), try_it).await.unwrap();
    (published.revision, published.rollback_at.unwrap() + Duration::from_secs(1))
}

/// Begins something, and returns when it queues at the gate.
async fn queued<T: Send + 'static>(
    ops: &Ops,
    what: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    let mut comers = ops.publisher().0.gate.comers();
    let task = tokio::spawn(what);
    tokio::time::timeout(Duration::from_secs(60), comers.changed()).await.expect("it comes").unwrap();
    task
}

#[tokio::test]
async fn what_was_confirmed_while_going_back_was_begun_stays() {
    let directory = Directory::new();
    let ops = directory.open().await;
    let (number, late) = over(&ops).await;
    let gate = ops.publisher().0.gate.lock().await;
    let me = ops.clone();
    let going_back = queued(&ops, async move { me.roll_back_unconfirmed(late).await }).await;
    assert!(ops.store().confirm_revision(number).await.unwrap());
    drop(gate);
    going_back.await.unwrap().unwrap();
    assert_eq!(ops.current().id.revision, number);
}

#[tokio::test]
async fn a_confirmation_is_accepted_or_the_revision_goes_back_and_never_both() {
    let newcomer = || Actor { connection: Some(Connection::accepted()), ..operator() };
    for by_hand in [false, true] {
        for confirms_first in [false, true] {
            let directory = Directory::new();
            let ops = directory.open().await;
            let (number, late) = over(&ops).await;
            let gate = ops.publisher().0.gate.lock().await;
            let (confirmer, me) = (ops.clone(), ops.clone());
            let confirming = async move { confirmer.confirm(number, &newcomer()).await };
            let going_back = async move {
                match by_hand {
                    true => me.rollback(1, &operator(), PublishOptions::default()).await.map(|_| ()),
                    false => me.roll_back_unconfirmed(late).await,
                }
            };
            let (confirming, going_back) = if confirms_first {
                let confirming = queued(&ops, confirming).await;
                (confirming, queued(&ops, going_back).await)
            } else {
                let going_back = queued(&ops, going_back).await;
                (queued(&ops, confirming).await, going_back)
            };
            assert!(!confirming.is_finished(), "it waits while a revision is made");
            drop(gate);
            let confirmed = confirming.await.unwrap();
            going_back.await.unwrap().unwrap();
            // Whoever goes back by hand after that means it.
            let stays = confirms_first && !by_hand;
            assert_eq!(ops.current().id.revision, if stays { number } else { number + 1 });
            match confirms_first {
                true => confirmed.unwrap(),
                false => assert_eq!(code(confirmed.unwrap_err()), Code::Conflict),
            }
        }
    }
}

#[tokio::test]
async fn a_wait_that_was_ended_is_not_taken_along() {
    let directory = Directory::new();
    let ops = directory.open().await;
    let (number, _) = over(&ops).await;
    let gate = ops.publisher().0.gate.lock().await;
    let me = ops.clone();
    let again = queued(&ops, async move { me.renumber("other labels".to_owned()).await }).await;
    let newcomer = Actor { connection: Some(Connection::accepted()), ..operator() };
    let me = ops.clone();
    let confirming = queued(&ops, async move { me.confirm(number, &newcomer).await }).await;
    drop(gate);
    again.await.unwrap().unwrap();
    // Refused: what is waiting has another number by now.
    assert_eq!(code(confirming.await.unwrap().unwrap_err()), Code::Conflict);
    assert!(ops.revision(number + 1).await.unwrap().unwrap().rollback_at.is_some());
}

#[tokio::test]
async fn a_confirmation_does_not_wait_for_ever() {
    let directory = Directory::new();
    let ops = directory.open().await;
    let (number, _) = over(&ops).await;
    let newcomer = Actor { connection: Some(Connection::accepted()), ..operator() };
    let gate = ops.publisher().0.gate.lock().await;
    let short = Duration::from_millis(10);
    let refused = ops.publisher().confirm_within(short, number).await.unwrap_err();
    drop(gate);
    assert!(refused.to_string().contains("confirm once more"), "{refused}");
    assert_eq!(code(refused), Code::Conflict);
    ops.confirm(number, &newcomer).await.unwrap();
}
