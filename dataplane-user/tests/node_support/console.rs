//! A console: enrols nodes, signs snapshots, remembers what nodes say.

use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::{Bytes, BytesMut};
use model::digest::Digest;
use model::link::*;
use model::snapshot::{SignedSnapshot, Snapshot};
use rcgen::{BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::sync::broadcast;

const SECRET: &str = "one-time-secret";

pub(crate) struct Console {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    runtime: Option<tokio::runtime::Runtime>,
}

struct Shared {
    ca: Issuer<'static, KeyPair>,
    ca_pem: String,
    ca_digest: Digest,
    signing: Ed25519KeyPair,
    chain: String,
    key: Vec<u8>,
    key_digest: Digest,
    state: Mutex<State>,
    heard: Condvar,
    out: broadcast::Sender<ConsoleMessage>,
}

#[derive(Default)]
struct State {
    latest: Option<SignedSnapshot>,
    messages: Vec<NodeMessage>,
    links: u32,
    enrolled: u32,
    renewed: u32,
    slow_keys: Duration,
    keys_asked: u32,
}

fn hex(bytes: &[u8]) -> Digest {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().parse().unwrap()
}

impl Console {
    pub(crate) fn start() -> Self {
        Self::start_on("127.0.0.1")
    }

    pub(crate) fn start_on(address: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "Test console CA");
        let key = KeyPair::generate().unwrap();
        let ca_certificate = params.self_signed(&key).unwrap();
        let ca = Issuer::new(params, key);
        let (chain, shop) = issue(&ca, "shop.test");
        let (out, _) = broadcast::channel(256);
        let shared = Arc::new(Shared {
            ca_pem: ca_certificate.pem(),
            ca_digest: Digest::of(ca_certificate.der()),
            signing: Ed25519KeyPair::generate().unwrap(),
            chain,
            key_digest: Digest::of(&rcgen::PublicKeyData::subject_public_key_info(&shop)),
            key: shop.serialize_der(),
            ca,
            state: Mutex::default(),
            heard: Condvar::new(),
            out,
        });
        let mut console = Self { address: format!("{address}:0").parse().unwrap(), shared, runtime: None };
        console.resume();
        console
    }

    /// Stops listening and closes every link, as a killed console does.
    pub(crate) fn pause(&mut self) {
        self.runtime.take().unwrap().shutdown_timeout(Duration::from_secs(1));
    }

    /// Listens again, on the same port.
    pub(crate) fn resume(&mut self) {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind(self.address)).unwrap();
        self.address = listener.local_addr().unwrap();
        runtime.spawn(serve(listener, self.address.ip().to_string(), self.shared.clone()));
        self.runtime = Some(runtime);
    }

    pub(crate) fn token(&self) -> String {
        let token = EnrolmentToken {
            console: self.address.to_string(),
            node: "edge".parse().unwrap(),
            ca: self.shared.ca_digest,
            snapshot_key: hex(self.shared.signing.public_key().as_ref()),
            secret: SECRET.to_owned(),
        };
        format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).unwrap()))
    }

    /// The chain and the key's digest of `shop.test`'s certificate.
    pub(crate) fn certificate(&self) -> (String, Digest) {
        (self.shared.chain.clone(), self.shared.key_digest)
    }

    pub(crate) fn sign(&self, snapshot: &Snapshot) -> SignedSnapshot {
        self.sign_text(snapshot.to_canonical_json().unwrap())
    }

    pub(crate) fn sign_text(&self, body: String) -> SignedSnapshot {
        let signature = STANDARD.encode(self.shared.signing.sign(&SignedSnapshot::signed_bytes(&body)));
        SignedSnapshot { body, signature }
    }

    /// Signs, keeps for nodes to come, and sends.
    pub(crate) fn publish(&self, snapshot: &Snapshot) {
        let signed = self.sign(snapshot);
        self.shared.state.lock().unwrap().latest = Some(signed.clone());
        self.send(ConsoleMessage::Snapshot(Box::new(signed)));
    }

    pub(crate) fn send(&self, message: ConsoleMessage) {
        // Nobody linked: the next link begins with the latest snapshot.
        let _ = self.shared.out.send(message);
    }

    /// A rotation to a new key, which signs from now on for the caller.
    pub(crate) fn rotation(&self) -> (ConsoleMessage, Ed25519KeyPair, Digest) {
        let new = Ed25519KeyPair::generate().unwrap();
        let key = hex(new.public_key().as_ref());
        let text = [b"sallyport snapshot key v1\0".as_slice(), key.as_bytes()].concat();
        let signature = STANDARD.encode(self.shared.signing.sign(&text));
        (ConsoleMessage::RotateKey { key, signature }, new, key)
    }

    /// Waits for a message that was not there at `from`.
    #[track_caller]
    pub(crate) fn expect<T>(&self, what: &str, mut pick: impl FnMut(&NodeMessage) -> Option<T>) -> T {
        let end = Instant::now() + Duration::from_secs(20);
        let mut state = self.shared.state.lock().unwrap();
        loop {
            if let Some(found) = state.messages.iter().find_map(&mut pick) {
                return found;
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the node never said: {what}; it said {:?}", brief(&state.messages));
            state = self.shared.heard.wait_timeout(state, left).unwrap().0;
        }
    }

    pub(crate) fn forget(&self) {
        self.shared.state.lock().unwrap().messages.clear();
    }

    #[track_caller]
    pub(crate) fn expect_applied(&self, revision: u64) {
        let applied = |message: &NodeMessage| {
            matches!(message, NodeMessage::Applied { id, .. } if id.revision == revision).then_some(())
        };
        self.expect(&format!("applied {revision}"), applied);
    }

    /// The reason.
    #[track_caller]
    pub(crate) fn expect_refused(&self, revision: u64) -> String {
        let refused = |message: &NodeMessage| {
            let NodeMessage::Refused { id, reason } = message else { return None };
            (id.revision == revision).then(|| reason.clone())
        };
        self.expect(&format!("refused {revision}"), refused)
    }

    pub(crate) fn links(&self) -> u32 {
        self.shared.state.lock().unwrap().links
    }

    pub(crate) fn enrolled(&self) -> u32 {
        self.shared.state.lock().unwrap().enrolled
    }

    pub(crate) fn renewed(&self) -> u32 {
        self.shared.state.lock().unwrap().renewed
    }

    /// Lets nodes wait this long for a private key.
    pub(crate) fn slow_keys(&self, wait: Duration) {
        self.shared.state.lock().unwrap().slow_keys = wait;
    }

    pub(crate) fn keys_asked(&self) -> u32 {
        self.shared.state.lock().unwrap().keys_asked
    }

    pub(crate) fn ca_pem(&self) -> &str {
        &self.shared.ca_pem
    }
}

fn brief(messages: &[NodeMessage]) -> Vec<String> {
    messages
        .iter()
        .filter(|message| !matches!(message, NodeMessage::Report(_)))
        .map(|m| format!("{m:?}"))
        .collect()
}

fn issue(ca: &Issuer<'static, KeyPair>, host: &str) -> (String, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![host.to_owned()]).unwrap().signed_by(&key, ca).unwrap();
    (certificate.pem(), key)
}

async fn serve(listener: tokio::net::TcpListener, host: String, shared: Arc<Shared>) {
    let (chain, key) = issue(&shared.ca, &host);
    let ca = CertificateDer::from_pem_slice(shared.ca_pem.as_bytes()).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(chain.as_bytes()).unwrap(), ca.clone()];
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let clients = clients.allow_unauthenticated().build().unwrap();
    let config =
        rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let mut config = config.with_client_cert_verifier(clients).with_single_cert(chain, key).unwrap();
    config.alpn_protocols = vec![ALPN.to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    loop {
        let Ok((tcp, _)) = listener.accept().await else { continue };
        let (acceptor, shared) = (acceptor.clone(), shared.clone());
        tokio::spawn(async move {
            let Ok(tls) = acceptor.accept(tcp).await else { return };
            let known = tls.get_ref().1.peer_certificates().is_some();
            let Ok(mut connection) = h2::server::handshake(tls).await else { return };
            while let Some(Ok((request, respond))) = connection.accept().await {
                tokio::spawn(answer(request, respond, known, shared.clone()));
            }
        });
    }
}

async fn answer(
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    known: bool,
    shared: Arc<Shared>,
) {
    let path = request.uri().path().to_owned();
    let mut body = request.into_body();
    let (status, bytes) = match (path.as_str(), known) {
        ("/node/v1/link", true) => return link(body, respond, shared).await,
        ("/node/v1/enrol", _) => {
            let request: EnrolRequest = serde_json::from_slice(&read(&mut body).await).unwrap();
            if request.secret == SECRET {
                shared.state.lock().unwrap().enrolled += 1;
                let certificate = sign_request(&shared, &request.csr);
                let answer = EnrolResponse { certificate, ca: shared.ca_pem.clone() };
                (200, serde_json::to_vec(&answer).unwrap())
            } else {
                (403, br#"{"message":"the token was used"}"#.to_vec())
            }
        }
        ("/node/v1/renew", true) => {
            let request: RenewRequest = serde_json::from_slice(&read(&mut body).await).unwrap();
            shared.state.lock().unwrap().renewed += 1;
            let certificate = sign_request(&shared, &request.csr);
            (200, serde_json::to_vec(&RenewResponse { certificate }).unwrap())
        }
        (key, true) if key == format!("/node/v1/keys/{}", shared.key_digest) => {
            let wait = {
                let mut state = shared.state.lock().unwrap();
                state.keys_asked += 1;
                state.slow_keys
            };
            tokio::time::sleep(wait).await;
            (200, shared.key.clone())
        }
        _ => (404, br#"{"message":"there is no such thing"}"#.to_vec()),
    };
    let head = http::Response::builder().status(status).body(()).unwrap();
    if let Ok(mut send) = respond.send_response(head, false) {
        let _ = send.send_data(bytes.into(), true);
    }
}

fn sign_request(shared: &Shared, csr: &str) -> String {
    let mut request = CertificateSigningRequestParams::from_pem(csr).unwrap();
    request.params.not_before = time::OffsetDateTime::now_utc() - time::Duration::hours(1);
    request.params.not_after = time::OffsetDateTime::now_utc() + time::Duration::days(7);
    request.signed_by(&shared.ca).unwrap().pem()
}

async fn read(body: &mut h2::RecvStream) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
        all.extend_from_slice(&data);
    }
    all
}

async fn link(mut body: h2::RecvStream, mut respond: h2::server::SendResponse<Bytes>, shared: Arc<Shared>) {
    let Ok(mut send) = respond.send_response(http::Response::new(()), false) else { return };
    let mut out = shared.out.subscribe();
    shared.state.lock().unwrap().links += 1;
    let mut buffer = BytesMut::new();
    let mut frame = move |message: &ConsoleMessage| {
        let json = serde_json::to_vec(message).unwrap();
        send.send_data([&(json.len() as u32).to_be_bytes(), json.as_slice()].concat().into(), false).is_ok()
    };
    loop {
        tokio::select! {
            data = body.data() => {
                let Some(Ok(data)) = data else { return };
                let _ = body.flow_control().release_capacity(data.len());
                buffer.extend_from_slice(&data);
                while let Some((length, rest)) = buffer.split_first_chunk::<4>() {
                    let length = u32::from_be_bytes(*length) as usize;
                    if rest.len() < length { break; }
                    let _ = buffer.split_to(4);
                    let message: NodeMessage = serde_json::from_slice(&buffer.split_to(length)).unwrap();
                    if let NodeMessage::Hello { applied, .. } = &message {
                        let latest = shared.state.lock().unwrap().latest.clone();
                        let newer = latest.filter(|latest| {
                            let known: Snapshot = serde_json::from_str(&latest.body).unwrap();
                            Some(known.id) > *applied
                        });
                        if newer.is_some_and(|latest| !frame(&ConsoleMessage::Snapshot(Box::new(latest)))) { return; }
                    }
                    shared.state.lock().unwrap().messages.push(message);
                    shared.heard.notify_all();
                }
            }
            message = out.recv() => {
                let Ok(message) = message else { return };
                if !frame(&message) { return; }
            }
        }
    }
}
