//! One fetch: from the origin to a revision, or to a reason why everything stays as it is.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use model::certificate::trust_bundle;
use model::digest::Digest;
use model::draft::{Kind, Object, PrefixSetSpec, PrefixSourceSpec, Spec};
use model::filter::{Everybody, Source, everybody, prefixes_in};
use model::https_url::HttpsUrl;
use model::net::Prefix;
use model::problem::Code;
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::Set;
use crate::clock;
use crate::fetch::{FetchError, Fetched, Validators, Wanted};
use crate::ops::{Actor, Changes, Ops, OpsError, PublishOptions, Role};
use crate::store::SourceRow;

/// Reasons of lists that were read, are kept back, and are taken when somebody confirms that they are meant.
pub(super) const CONFIRMABLE: [&str; 3] = ["everybody", "shrunk", "protected"];
/// Revisions that may come first while a list is published.
const TRIES: usize = 4;

/// Why a fetch changed nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Kept {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    #[error("{0}; it is kept back until somebody confirms that it is meant")]
    Everybody(Everybody),
    #[error(
        "of its {before} prefixes {after} are left, which is less than may be lost at once; it is kept back until somebody confirms that it is meant"
    )]
    Shrunk { before: usize, after: usize },
    #[error("it is kept back: {0}")]
    Protected(String),
    #[error("with it there would be something wrong: {0}")]
    Refused(String),
    #[error(
        "revision {0} waits for its confirmation, and another one would end that; it is taken afterwards"
    )]
    Waiting(u64),
    #[error("the console failed: {0}")]
    Fault(OpsError),
}

impl Kept {
    /// One word of a closed list.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Fetch(why) => why.reason(),
            Self::Unreadable(_) => "unreadable",
            Self::Everybody(_) => "everybody",
            Self::Shrunk { .. } => "shrunk",
            Self::Protected(_) => "protected",
            Self::Refused(_) => "refused",
            Self::Waiting(_) => "waiting",
            Self::Fault(_) => "console",
        }
    }
}

/// What a fetch did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The origin has what was taken last.
    Unchanged,
    /// A new revision has the list.
    Published(u64),
    /// Everything stays as it is, because.
    Kept(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unchanged => f.write_str("unchanged"),
            Self::Published(revision) => write!(f, "revision {revision}"),
            Self::Kept(why) => write!(f, "kept: {why}"),
        }
    }
}

/// A list that was taken, with what tells it from the next.
struct Taken {
    revision: Option<u64>,
    /// Absent where the origin said that nothing changed.
    list: Option<(String, Validators)>,
}

/// What tells two lists apart.
pub(super) fn digest(prefixes: &[String]) -> String {
    Digest::of(prefixes.join("\n").as_bytes()).to_string()
}

impl Ops {
    /// Fetches one list; `by` is who asked for it, with the confirmation, and nobody where it was due.
    pub(super) async fn fetch(&self, name: &str, by: Option<(&Actor, bool)>) -> Result<Outcome, OpsError> {
        let Some(set) = self.fetched_set(name) else { return Ok(Outcome::Unchanged) };
        let known = {
            let mut all = self.sources().known();
            let known = all.entry(name.to_owned()).or_default();
            if std::mem::replace(&mut known.running, true) {
                let message = "its list is being fetched already; look again in a moment";
                return Err(OpsError::problem(set.object.label(), "spec.source", Code::Conflict, message));
            }
            known.fetches += 1;
            match known.row.source == set.identity() {
                true => known.row.clone(),
                false => SourceRow::default(),
            }
        };
        let running = Running(self, name);
        let taken = self.take(&set, &known, by).await;
        let now = clock::to_ms(clock::now());
        let base = SourceRow { name: name.to_owned(), source: set.identity(), tried_ms: now, ..known };
        let (row, outcome) = match taken {
            Ok(Taken { revision, list }) => {
                let (digest, validators) = match list {
                    Some((digest, validators)) => (Some(digest), validators),
                    None => (base.digest, Validators { etag: base.etag, modified: base.modified }),
                };
                let Validators { etag, modified } = validators;
                let good = SourceRow { digest, etag, modified, current_ms: Some(now), failures: 0, ..base };
                let row = SourceRow { reason: None, problem: None, ..good };
                (row, revision.map_or(Outcome::Unchanged, Outcome::Published))
            }
            Err(why) => {
                let (reason, problem) = (why.reason(), why.to_string());
                *self
                    .sources()
                    .known()
                    .entry(name.to_owned())
                    .or_default()
                    .failed
                    .entry(reason)
                    .or_default() += 1;
                let failures = base.failures.saturating_add(1);
                let row = SourceRow {
                    failures,
                    reason: Some(reason.to_owned()),
                    problem: Some(problem.clone()),
                    ..base
                };
                (row, Outcome::Kept(problem))
            }
        };
        self.sources().known().entry(name.to_owned()).or_default().row = row.clone();
        drop(running);
        self.store().set_source(&row).await?;
        Ok(outcome)
    }

    async fn take(&self, set: &Set, known: &SourceRow, by: Option<(&Actor, bool)>) -> Result<Taken, Kept> {
        let url: HttpsUrl =
            set.source.url.parse().map_err(|why| Kept::Refused(format!("the address {why}")))?;
        // Whoever asks wants the list, whatever is known of it.
        let known_validators = match by {
            Some(_) => Validators::default(),
            None => Validators { etag: known.etag.clone(), modified: known.modified.clone() },
        };
        let wanted = Wanted {
            url: &url,
            roots: self.roots(&set.source).await?,
            max_bytes: Source::of(&set.source).max_bytes,
            known: known_validators,
        };
        let (bytes, validators) = match self.sources().fetcher.get(&wanted).await? {
            Fetched::Unchanged => return Ok(Taken { revision: None, list: None }),
            Fetched::Document { bytes, validators } => (bytes, validators),
        };
        let key = set.source.key.clone();
        // A document of 8 MiB takes a while: not on the thread that answers everybody else.
        let reading = tokio::task::spawn_blocking(move || {
            let text = String::from_utf8(bytes).map_err(|_utf8| "it is no text in UTF-8".to_owned())?;
            prefixes_in(&text, key.as_deref()).map_err(|why| why.to_string())
        });
        let found = reading.await.map_err(|_panicked| Kept::Fault(OpsError::Stopped))?;
        let prefixes = found.map_err(Kept::Unreadable)?;
        let texts: Vec<String> = prefixes.iter().map(ToString::to_string).collect();
        let digest = digest(&texts);
        let list = Some((digest.clone(), validators));
        // The list in force is another, but the origin's is the one that was taken before: somebody wanted it so.
        if by.is_none() && known.digest.as_ref() == Some(&digest) {
            return Ok(Taken { revision: None, list });
        }
        let confirmed = by.is_some_and(|(_, confirm)| confirm);
        if !confirmed {
            keep_back(set, &prefixes, known)?;
        }
        let revision = self.publish_list(set, texts, by).await?;
        Ok(Taken { revision, list })
    }

    /// A revision with the list, unless it is in force already.
    async fn publish_list(
        &self,
        set: &Set,
        prefixes: Vec<String>,
        by: Option<(&Actor, bool)>,
    ) -> Result<Option<u64>, Kept> {
        let actor = match by {
            Some((actor, _)) => actor.clone(),
            None => Actor {
                name: format!("prefix set {} from URL", set.name()),
                role: Role::Operator,
                address: None,
                connection: None,
            },
        };
        let protect = self.people().await.map_err(Kept::Fault)?;
        for _ in 0..TRIES {
            let current = self.current();
            let now = current.objects.get(&(Kind::PrefixSet, set.name().to_owned())).and_then(Set::of);
            // Removed, or fetched from elsewhere meanwhile: this list is nobody's.
            let Some(now) = now.filter(|now| now.source == set.source) else { return Ok(None) };
            if now.spec.prefixes == prefixes {
                return Ok(None);
            }
            let newest = self.store().newest().await.map_err(|why| Kept::Fault(why.into()))?;
            if let Some(row) = newest.filter(|row| row.rollback.is_some()) {
                return Err(Kept::Waiting(row.number));
            }
            let options = PublishOptions {
                confirm: by.is_some_and(|(_, confirm)| confirm),
                message: message(&now, &prefixes),
                base_revision: Some(current.id.revision),
                protect: protect.clone(),
                ..PublishOptions::default()
            };
            let spec = PrefixSetSpec { prefixes: prefixes.clone(), ..now.spec.clone() };
            let object = Object { spec: Spec::PrefixSet(spec), ..now.object };
            match self.publish(Changes::put(object), &actor, options).await {
                Ok(published) => return Ok(Some(published.revision)),
                Err(why) if why.needs_confirmation() => return Err(Kept::Protected(why.to_string())),
                Err(OpsError::Problems(_)) if self.current().id != current.id => {}
                Err(why @ OpsError::Problems(_)) => return Err(Kept::Refused(why.to_string())),
                Err(why) => return Err(Kept::Fault(why)),
            }
        }
        Err(Kept::Refused("too many other changes were published meanwhile".to_owned()))
    }

    /// Whom the origin is verified against.
    async fn roots(&self, source: &PrefixSourceSpec) -> Result<Arc<RootCertStore>, Kept> {
        let certificates: Vec<CertificateDer<'static>> = match source.trust_bundle.as_deref() {
            None | Some("system") => {
                let loading = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs);
                loading.await.map_err(|_panicked| Kept::Fault(OpsError::Stopped))?.certs
            }
            Some("internal") => pem(self.authority().pem()),
            Some(name) => {
                let current = self.current();
                match current.objects.get(&(Kind::TrustBundle, name.to_owned())).map(|object| &object.spec) {
                    Some(Spec::TrustBundle(spec)) if trust_bundle(&spec.certificates).is_ok() => {
                        pem(&spec.certificates)
                    }
                    _ => Vec::new(),
                }
            }
        };
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates);
        if roots.is_empty() { Err(FetchError::Certificates.into()) } else { Ok(Arc::new(roots)) }
    }
}

fn pem(text: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(text.as_bytes()).flatten().collect()
}

/// Lists that nobody publishes on purpose, most likely.
fn keep_back(set: &Set, prefixes: &[Prefix], known: &SourceRow) -> Result<(), Kept> {
    if let Some(why) = everybody(prefixes) {
        return Err(Kept::Everybody(why));
    }
    let (before, after) = (set.spec.prefixes.len(), prefixes.len());
    // What was there before this source's first list was somebody else's.
    match known.digest.is_some() && Source::of(&set.source).is_too_short(before, after) {
        true => Err(Kept::Shrunk { before, after }),
        false => Ok(()),
    }
}

fn message(set: &Set, prefixes: &[String]) -> String {
    let before: BTreeSet<&String> = set.spec.prefixes.iter().collect();
    let after: BTreeSet<&String> = prefixes.iter().collect();
    let (added, removed) = (after.difference(&before).count(), before.difference(&after).count());
    let noun = if added == 1 { "prefix" } else { "prefixes" };
    format!("the list at {} has {added} {noun} more and {removed} less", set.source.url)
}

/// Says that the fetch is over, however it ends.
struct Running<'a>(&'a Ops, &'a str);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let Some(known) = self.0.sources().known().get_mut(self.1) {
            known.running = false;
        }
    }
}
