//! Active probes: one thread of their own asks every origin of a group that wants it, so that the threads of the path pay
//! for reading the result only. Each probe has a new connection: it tests what a request would meet.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::ready;

use arc_swap::ArcSwap;
use bytes::BytesMut;
use model::snapshot::{Probe, ProbeMethod, SnapshotId};
use rustls_pki_types::ServerName;
use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, LocalSet, spawn_local};
use tokio::time::{Duration, Instant, sleep_until, timeout};

use super::either::Connection;
use super::health::{Samples, clock};
use super::reach::{Kind, Want, dialled};
use super::resolve::{Names, System};
use crate::worker::hops::Stop;
use crate::worker::http::receive::Got;
use crate::worker::http::request::Method;
use crate::worker::live::{GroupLive, Live, OriginLive, SecurityLive};
use crate::worker::proxy::write::Behalf;

/// Probes under way at once.
const MOST: usize = 64;

/// The most a probe reads of an answer.
const BODY: u64 = 1024 * 1024;

/// What a probe says it is.
const AGENT: &str = "Sallyport-Probe";

/// Starts the thread that probes the origins of `live`. It ends with `stop`.
///
/// # Errors
/// The thread cannot be started.
pub fn start(
    live: Arc<ArcSwap<Live>>,
    changed: watch::Receiver<SnapshotId>,
    stop: watch::Receiver<Stop>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("probes".to_owned()).spawn(move || {
        LocalSet::new().block_on(&runtime, follow(live, changed, stop));
    })?;
    Ok(())
}

/// What all probes share.
struct Shared {
    names: Names<System>,
    places: Semaphore,
}

struct Task {
    group: Arc<GroupLive>,
    abort: AbortHandle,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

async fn follow(
    live: Arc<ArcSwap<Live>>,
    mut changed: watch::Receiver<SnapshotId>,
    mut stop: watch::Receiver<Stop>,
) {
    let shared = std::rc::Rc::new(Shared { names: Names::new(System::new()), places: Semaphore::new(MOST) });
    let mut tasks: HashMap<u64, Task> = HashMap::new();
    let mut fresh = tokio::time::interval(Duration::from_secs(1));
    let mut again = true;
    loop {
        if again {
            tasks = reconciled(&live.load(), tasks, &shared);
        }
        tokio::select! {
            told = changed.changed() => {
                if told.is_err() {
                    return;
                }
                again = true;
            }
            told = stop.changed() => {
                if told.is_err() || *stop.borrow_and_update() == Stop::Now {
                    return;
                }
                again = false;
            }
            _ = fresh.tick() => {
                shared.names.refresh(Instant::now()).await;
                again = false;
            }
        }
    }
}

/// Probes that go on, and those that begin; others end.
fn reconciled(
    live: &Live,
    mut before: HashMap<u64, Task>,
    shared: &std::rc::Rc<Shared>,
) -> HashMap<u64, Task> {
    let mut tasks = HashMap::new();
    for group in live.groups.values() {
        for member in &group.members {
            let origin = &member.origin;
            let Some(probe) = group.probe.as_ref().filter(|_| member.enabled) else {
                origin.health.forget_probes();
                continue;
            };
            let same = |task: &Task| {
                task.group.probe.as_ref() == Some(probe)
                    && (task.group.protocols, task.group.connect_timeout)
                        == (group.protocols, group.connect_timeout)
            };
            let task = before.remove(&origin.key).filter(same).unwrap_or_else(|| {
                let work =
                    run(Arc::clone(origin), Arc::clone(group), probe.clone(), std::rc::Rc::clone(shared));
                Task { group: Arc::clone(group), abort: spawn_local(work).abort_handle() }
            });
            tasks.insert(origin.key, task);
        }
    }
    tasks
}

async fn run(origin: Arc<OriginLive>, group: Arc<GroupLive>, probe: Probe, shared: std::rc::Rc<Shared>) {
    let mut samples = Samples::default();
    let mut healthy = true;
    let interval = Duration::from_millis(probe.interval_ms.into());
    let mut next = Instant::now();
    loop {
        sleep_until(next).await;
        let Ok(place) = shared.places.acquire().await else { return };
        let asked = Instant::now();
        let limit = Duration::from_millis(probe.timeout_ms.into());
        let asking = ask(&origin, &group, &probe, &shared.names);
        let result =
            timeout(limit, asking).await.unwrap_or_else(|_elapsed| Err("no answer in time".to_owned()));
        drop(place);
        let latency = result.as_ref().ok().map(|()| asked.elapsed());
        let now = samples.add(latency, probe.samples as usize, probe.healthy as usize);
        if now != healthy {
            let why = result.as_ref().err().map(String::as_str).unwrap_or_default();
            tracing::warn!(group = %group.name, origin = %origin.address, healthy = now, why, "a probed origin changed");
            healthy = now;
        }
        origin.health.set_probed(now, samples.latency(), result.err(), clock(Instant::now()));
        // Origins that were entered together are not asked together for ever.
        let spread = interval.mul_f64(f64::from((origin.key % 16) as u8) / 160.0);
        next = (next + interval + spread).max(Instant::now());
    }
}

/// One probe: a new connection, one request, the answer to its last byte.
async fn ask(
    origin: &OriginLive,
    group: &GroupLive,
    probe: &Probe,
    names: &Names<System>,
) -> Result<(), String> {
    let want = Want::of(group.protocols, &origin.security, Kind::Plain);
    let deadline = Instant::now() + group.connect_timeout;
    let reached = dialled(origin, (want, &Behalf::Own), &group.http2, deadline, names).await;
    let mut connection = reached.map_err(|unreached| unreached.sentence)?.into_connection();
    let authority = authority(origin);
    begin(&mut connection, origin, probe, &authority)?;
    let mut scratch = vec![0; 16 * 1024];
    let status = poll_fn(|cx| {
        // A failing write is told by the missing answer.
        let _ = connection.poll_flush(cx);
        loop {
            let head = ready!(connection.poll_head(cx, &mut scratch));
            match head {
                Ok(head) if head.informational() => {}
                Ok(head) => return std::task::Poll::Ready(Ok(head.status)),
                Err(why) => return std::task::Poll::Ready(Err(format!("no answer: {why:?}").to_lowercase())),
            }
        }
    })
    .await?;
    let mut read = 0;
    loop {
        let held = connection.decode_held(usize::MAX).map_err(|_bad| "a broken answer".to_owned())?;
        connection.drop_held(held);
        read += held.produced as u64;
        match poll_fn(|cx| connection.poll_body(cx, &mut scratch)).await {
            Ok(Got::Data(length)) => read += length as u64,
            Ok(Got::End(_)) => break,
            Err(_) => return Err("the answer broke off".to_owned()),
        }
        if read > BODY {
            return Err("the answer is larger than 1 MiB".to_owned());
        }
    }
    if probe.statuses.contains(&status) { Ok(()) } else { Err(format!("answered {status}")) }
}

/// Whom the probe is for: the name that is expected, as requests' own hosts are not known here.
fn authority(origin: &OriginLive) -> String {
    let SecurityLive::Tls { name, verified, .. } = &origin.security else {
        return origin.address.to_string();
    };
    if let ServerName::DnsName(name) = verified.as_ref().unwrap_or(name) {
        name.as_ref().to_owned()
    } else {
        origin.address.to_string()
    }
}

fn begin(
    connection: &mut Connection,
    origin: &OriginLive,
    probe: &Probe,
    authority: &str,
) -> Result<(), String> {
    let (token, method) = match probe.method {
        ProbeMethod::Head => ("HEAD", Method::Head),
        ProbeMethod::Get => ("GET", Method::Get),
    };
    match connection {
        Connection::Http1(connection) => {
            let head = format!(
                "{token} {} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: {AGENT}\r\nX-Sallyport-Probe: 1\r\nConnection: close\r\n\r\n",
                probe.path
            );
            connection.begin_with(BytesMut::from(head.as_bytes()), method);
            Ok(())
        }
        Connection::Http2(stream) => {
            let scheme = if matches!(origin.security, SecurityLive::ClearText) { "http" } else { "https" };
            let head = http::Request::builder()
                .method(token)
                .uri(format!("{scheme}://{authority}{}", probe.path))
                .header(http::header::USER_AGENT, AGENT)
                .header("x-sallyport-probe", "1")
                .body(())
                .map_err(|error| error.to_string())?;
            stream.begin_with(head, method);
            Ok(())
        }
    }
}
