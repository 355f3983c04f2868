//! Signatures; bodies follow.
use std::collections::BTreeMap;
use std::time::Duration;

use model::draft::{Kind, Object};

use super::{
    Actor, ChangeLine, Changes, DropSeries, Event, ListQuery, Need, Node, OpsError, OriginState, Page, PublishOptions, Published,
    Review, Revision, Role, RouteTraffic, Status, Stored, Traffic, User,
};

/// The operations; cheap to clone.
#[derive(Debug, Clone)]
pub struct Ops {}

const LATER: OpsError = OpsError::Forbidden("not built yet");

impl Ops {
    /// One page of objects, searched and sorted in SQL.
    pub async fn list(&self, query: &ListQuery) -> Result<Page<Stored>, OpsError> {
        let _ = query;
        Err(LATER)
    }
    /// One object.
    pub async fn get(&self, kind: Kind, name: &str) -> Result<Option<Stored>, OpsError> {
        let _ = (kind, name);
        Err(LATER)
    }
    /// Names of all objects of a kind, sorted (for selects).
    pub async fn names(&self, kind: Kind) -> Result<Vec<String>, OpsError> {
        let _ = kind;
        Err(LATER)
    }
    /// How many objects of each kind there are.
    pub async fn counts(&self) -> Result<BTreeMap<Kind, u64>, OpsError> {
        Err(LATER)
    }
    /// Objects that refer to this one, `Kind/name`.
    pub async fn used_by(&self, kind: Kind, name: &str) -> Result<Vec<(Kind, String)>, OpsError> {
        let _ = (kind, name);
        Err(LATER)
    }
    /// Objects as YAML documents (`export`): no key, only references.
    pub async fn export(&self, kind: Option<Kind>, name: Option<&str>) -> Result<Vec<Object>, OpsError> {
        let _ = (kind, name);
        Err(LATER)
    }
    /// What publishing these changes would do; problems are in the review, not in the error.
    pub async fn plan(&self, changes: &Changes, actor: &Actor) -> Result<Review, OpsError> {
        let _ = (changes, actor);
        Err(LATER)
    }
    /// Publishes.
    pub async fn publish(&self, changes: Changes, actor: &Actor, options: PublishOptions) -> Result<Published, OpsError> {
        let _ = (changes, actor, options);
        Err(LATER)
    }
    /// A new revision with the objects of an old one.
    pub async fn rollback(&self, to: u64, actor: &Actor, options: PublishOptions) -> Result<Published, OpsError> {
        let _ = (to, actor, options);
        Err(LATER)
    }
    /// What a rollback would do.
    pub async fn plan_rollback(&self, to: u64, actor: &Actor) -> Result<Review, OpsError> {
        let _ = (to, actor);
        Err(LATER)
    }
    /// Keeps a revision that would roll back by itself.
    pub async fn confirm(&self, revision: u64, actor: &Actor) -> Result<(), OpsError> {
        let _ = (revision, actor);
        Err(LATER)
    }
    /// Revisions, newest first.
    pub async fn revisions(&self, page: u32, per_page: u32) -> Result<Page<Revision>, OpsError> {
        let _ = (page, per_page);
        Err(LATER)
    }
    /// One revision.
    pub async fn revision(&self, number: u64) -> Result<Option<Revision>, OpsError> {
        let _ = number;
        Err(LATER)
    }
    /// The difference between two revisions in words.
    pub async fn compare(&self, from: u64, to: u64) -> Result<Vec<ChangeLine>, OpsError> {
        let _ = (from, to);
        Err(LATER)
    }
    /// All nodes, by name; revoked ones too.
    pub async fn nodes(&self) -> Result<Vec<Node>, OpsError> {
        Err(LATER)
    }
    /// Makes a one-time enrolment token (`sallyport1....`) for a new or known node.
    pub async fn enrol_node(&self, name: &str, actor: &Actor) -> Result<String, OpsError> {
        let _ = (name, actor);
        Err(LATER)
    }
    /// Shuts a node out.
    pub async fn revoke_node(&self, name: &str, actor: &Actor) -> Result<(), OpsError> {
        let _ = (name, actor);
        Err(LATER)
    }
    /// Drains a node, or puts it back to work.
    pub async fn drain_node(&self, name: &str, on: bool, actor: &Actor) -> Result<(), OpsError> {
        let _ = (name, on, actor);
        Err(LATER)
    }
    /// Revision, nodes and needs.
    pub async fn status(&self) -> Result<Status, OpsError> {
        Err(LATER)
    }
    /// What an operator should do, worst first.
    pub async fn needs(&self) -> Result<Vec<Need>, OpsError> {
        Err(LATER)
    }
    /// All traffic of the last `window`.
    pub async fn traffic(&self, window: Duration) -> Result<Traffic, OpsError> {
        let _ = window;
        Err(LATER)
    }
    /// Traffic of these routes in the last `window`, with their legs; a route without any has an empty entry.
    pub async fn route_traffic(&self, routes: &[String], window: Duration) -> Result<BTreeMap<String, RouteTraffic>, OpsError> {
        let _ = (routes, window);
        Err(LATER)
    }
    /// Origins' state by group, then address, then node.
    pub async fn origins(&self) -> Result<Vec<OriginState>, OpsError> {
        Err(LATER)
    }
    /// Drops and refusals of the last `window`, most first.
    pub async fn drops(&self, window: Duration) -> Result<Vec<DropSeries>, OpsError> {
        let _ = window;
        Err(LATER)
    }
    /// Users, by name.
    pub async fn users(&self) -> Result<Vec<User>, OpsError> {
        Err(LATER)
    }
    /// Adds a user.
    pub async fn add_user(&self, name: &str, password: &str, role: Role, actor: &Actor) -> Result<(), OpsError> {
        let _ = (name, password, role, actor);
        Err(LATER)
    }
    /// Events from now on, for `/events`.
    pub fn events(&self) -> tokio::sync::broadcast::Receiver<Event> {
        tokio::sync::broadcast::channel(1).1
    }
}
