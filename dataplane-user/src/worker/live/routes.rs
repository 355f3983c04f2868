//! Routes of a snapshot: where each leads, and which are the same as before.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use model::name::Name;
use model::snapshot::Route;
use model::transform::{Answer, Transform};

use super::build::{Builder, LiveError, missing};
use super::{GroupLive, RouteLive, Target};

impl Builder<'_> {
    pub(super) fn routes(
        &self,
        routes: &[Route],
        groups: &HashMap<Name, Arc<GroupLive>>,
    ) -> Result<HashMap<Name, Arc<RouteLive>>, LiveError> {
        let mut live = HashMap::with_capacity(routes.len());
        for route in routes {
            let (target, transform) = (target(route, groups)?, transform(route));
            let response_timeout = Duration::from_millis(route.response_timeout_ms.into());
            let before = self.previous.and_then(|live| live.kept.routes.get(&route.name));
            let same = before.filter(|before| {
                before.target.same(&target)
                    && before.transform == transform
                    && before.allow_encoded_slash == route.allow_encoded_slash
                    && before.response_timeout == response_timeout
                    && before.upgrades == route.upgrades
            });
            let now = match same {
                Some(same) => Arc::clone(same),
                None => Arc::new(RouteLive {
                    name: route.name.clone(),
                    slot: before.map_or_else(next_slot, |before| before.slot),
                    target,
                    allow_encoded_slash: route.allow_encoded_slash,
                    response_timeout,
                    transform,
                    upgrades: route.upgrades.clone(),
                }),
            };
            live.insert(route.name.clone(), now);
        }
        Ok(live)
    }
}

/// A number for a route that no other has.
pub(super) fn next_slot() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn target(route: &Route, groups: &HashMap<Name, Arc<GroupLive>>) -> Result<Target, LiveError> {
    match (&route.transform.answer, &route.origin_group) {
        (Some(Answer::Redirect(redirect)), _) => Ok(Target::Redirect(Box::new(redirect.clone()))),
        (Some(Answer::Fixed(fixed)), _) => Ok(Target::Fixed {
            status: fixed.status,
            content_type: fixed.content_type.clone(),
            body: fixed.body.clone().into(),
        }),
        (None, Some(name)) => {
            let group =
                groups.get(name).ok_or_else(|| missing("Route", &route.name, "origin group", name))?;
            Ok(Target::Origins(Arc::clone(group)))
        }
        (None, None) => Err(LiveError::NoTarget(route.name.clone())),
    }
}

/// What is left of the filters when the answer has become the target.
fn transform(route: &Route) -> Option<Box<Transform>> {
    let transform = Transform { answer: None, ..route.transform.clone() };
    (transform != Transform::default()).then(|| Box::new(transform))
}
