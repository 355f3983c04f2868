use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, PublicKeyData as _, SanType,
    date_time_ymd,
};

use super::*;

fn params(name: &str, hosts: &[&str]) -> CertificateParams {
    let mut params =
        CertificateParams::new(hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2027, 1, 1);
    params.use_authority_key_identifier_extension = true;
    params
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = params(name, &[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_after = date_time_ymd(2026, 12, 1);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn hosts(facts: &Facts) -> Vec<String> {
    facts.hostnames.iter().map(ToString::to_string).collect()
}

#[test]
fn a_chain_says_its_names_times_and_key() {
    let ca = authority("Test CA");
    let key = KeyPair::generate().unwrap();
    let mut params = params("leaf", &["shop.example.com", "*.example.com", "API.example.com"]);
    params.subject_alt_names.push(SanType::IpAddress("192.0.2.1".parse().unwrap()));
    let leaf = params.signed_by(&key, &ca).unwrap();
    let facts = Facts::of_chain(&format!("a comment\n{}{}", leaf.pem(), ca.pem())).unwrap();
    assert_eq!(hosts(&facts), ["api.example.com", "shop.example.com", "*.example.com"]);
    assert!(facts.subject.contains("CN=leaf") && facts.issuer.contains("CN=Test CA"), "{facts:?}");
    assert_eq!(facts.not_before, date_time_ymd(2026, 1, 1));
    assert_eq!(facts.not_after, date_time_ymd(2026, 12, 1), "the authority ends first");
    assert_eq!(facts.key, Digest::of(&key.subject_public_key_info()));
    assert_eq!(facts.key, spki_digest_of_key(&key.serialize_pem()).unwrap());
    assert_eq!(facts.fingerprint, Digest::of(leaf.der()));
    assert_eq!((facts.length, facts.self_signed), (2, false));
}

#[test]
fn a_self_signed_leaf_is_a_chain_of_one() {
    let leaf = params("leaf", &["a.example.com"]).self_signed(&KeyPair::generate().unwrap()).unwrap();
    let facts = Facts::of_chain(&leaf.pem()).unwrap();
    assert_eq!((facts.length, facts.self_signed), (1, true));
}

#[test]
fn coverage_is_one_label_deep() {
    let leaf =
        params("leaf", &["*.example.com", "example.com"]).self_signed(&KeyPair::generate().unwrap()).unwrap();
    let facts = Facts::of_chain(&leaf.pem()).unwrap();
    for (host, expected) in [
        ("example.com", true),
        ("a.example.com", true),
        ("*.example.com", true),
        ("a.b.example.com", false),
        ("*.a.example.com", false),
        ("*.com", false),
        ("com", false),
        ("example.net", false),
    ] {
        assert_eq!(facts.covers(&host.parse().unwrap()), expected, "{host}");
    }
}

#[test]
fn unusable_chains_say_why() {
    let (ca, other) = (authority("Test CA"), authority("Test CA"));
    let key = KeyPair::generate().unwrap();
    let leaf = params("leaf", &["a.example.com"]).signed_by(&key, &ca).unwrap().pem();
    let nameless = params("leaf", &[]).signed_by(&key, &ca).unwrap().pem();
    let lines: Vec<&str> = leaf.lines().collect();
    let cut = lines[..lines.len() - 2].join("\n");
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (pem, expected) in [
        (String::new(), InvalidChain::NoCertificate),
        ("hello".to_owned(), InvalidChain::NoCertificate),
        (key.serialize_pem(), InvalidChain::PrivateKey),
        (format!("{leaf}{}", key.serialize_pem()), InvalidChain::PrivateKey),
        (cut, InvalidChain::Pem(1)),
        (format!("{leaf}-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----"), InvalidChain::Pem(2)),
        (garbage.to_owned(), InvalidChain::Der(1)),
        (format!("{leaf}{garbage}"), InvalidChain::Der(2)),
        (format!("{}{leaf}", ca.pem()), InvalidChain::Order(1)),
        (format!("{leaf}{}", other.pem()), InvalidChain::Order(1)),
        (format!("{leaf}{}{leaf}", ca.pem()), InvalidChain::Order(2)),
        (nameless, InvalidChain::NoNames),
    ] {
        assert_eq!(Facts::of_chain(&pem).unwrap_err(), expected, "{pem}");
    }
}

#[test]
fn a_bundle_has_authorities_only() {
    let (ca, other) = (authority("Test CA"), authority("Other CA"));
    let found = trust_bundle(&format!("{}{}", ca.pem(), other.pem())).unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!(found[0].fingerprint, Digest::of(ca.der()));
    assert_eq!(found[1].not_after, date_time_ymd(2026, 12, 1));
    let key = KeyPair::generate().unwrap();
    let leaf = params("leaf", &["a.example.com"]).signed_by(&key, &ca).unwrap().pem();
    let why = trust_bundle(&format!("{}{leaf}", ca.pem())).unwrap_err();
    assert!(matches!(&why, InvalidBundle::NotAuthority { place: 2, .. }), "{why}");
    assert_eq!(trust_bundle("x").unwrap_err(), InvalidBundle::NoCertificate);
    assert_eq!(trust_bundle(&key.serialize_pem()).unwrap_err(), InvalidBundle::PrivateKey);
    let pinned = params("appliance", &["a.example.com"]).self_signed(&key).unwrap().pem();
    assert_eq!(trust_bundle(&pinned).unwrap().len(), 1);
}

/// Keys made by `openssl` 3 for this test, each with the digest that
/// `openssl pkey -pubout -outform DER | sha256sum` says of it.
#[test]
fn every_kind_of_key_says_its_digest() {
    for (name, pem, digest) in include!("test_keys.rs") {
        let key = PrivateKey::parse(pem).unwrap_or_else(|why| panic!("{name}: {why}"));
        assert_eq!(key.digest().to_string(), digest, "{name}");
        let again = PrivateKey::from_pkcs8_der(key.pkcs8_der().to_vec()).unwrap();
        assert_eq!(again.digest(), key.digest(), "{name}");
        assert!(!format!("{key:?}").contains("pkcs8"), "{key:?}");
    }
}

#[test]
fn unusable_keys_say_why_and_never_quote() {
    let key = KeyPair::generate().unwrap();
    let pem = key.serialize_pem();
    let certificate = params("leaf", &["a.example.com"]).self_signed(&key).unwrap().pem();
    let encrypted = pem.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    for (text, expected) in [
        (String::new(), InvalidKey::NoKey),
        (certificate, InvalidKey::Certificate),
        (key.public_key_pem(), InvalidKey::PublicKey),
        (encrypted, InvalidKey::Encrypted),
        ("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n".to_owned(), InvalidKey::Encrypted),
        (format!("{pem}{pem}"), InvalidKey::Several),
        (pem[..pem.len() - 40].to_owned(), InvalidKey::Pem),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n".to_owned(), InvalidKey::Unusable),
        (
            "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n".to_owned(),
            InvalidKey::Unusable,
        ),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n".to_owned(),
            InvalidKey::Unusable,
        ),
    ] {
        assert_eq!(PrivateKey::parse(&text).unwrap_err(), expected);
    }
}
