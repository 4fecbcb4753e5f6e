//! Who is believed, and what for: certificates of either side, cipher suites, ECN marks.

use crate::common::attack::{Attack, Plan};
use crate::common::certs::provider;
use crate::common::pair::{CLIENT, Pair, SERVER, Setup};
use crate::common::raw_peer::crypto_frame;
use crate::parser::start_client;
use corelane::base::Ecn;
use corelane::conn::{ConnectionError, Endpoint, EndpointConfig, Event};
use corelane::wire::frame::Frame;
use corelane::wire::{Code, PacketType};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::sync::Arc;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// Alerts of RFC 8446 §6, as RFC 9001 §4.8 carries them.
const HANDSHAKE_FAILURE: u8 = 40;
const BAD_CERTIFICATE: u8 = 42;
const CERTIFICATE_EXPIRED: u8 = 45;
const ILLEGAL_PARAMETER: u8 = 47;
const UNKNOWN_CA: u8 = 48;
const CERTIFICATE_REQUIRED: u8 = 116;

/// Somebody who signs certificates.
struct Authority {
    params: CertificateParams,
    key: KeyPair,
}

/// A certificate with its key.
struct Leaf {
    cert: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, name);
        Self { params, key }
    }

    fn issue(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let mut params = CertificateParams::new(vec![name.into()]).expect("a name");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        change(&mut params);
        let issuer = Issuer::from_params(&self.params, &self.key);
        let cert = params.signed_by(&key, &issuer).expect("a certificate");
        Leaf {
            cert: cert.der().clone(),
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        }
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        let own = self.params.self_signed(&self.key).expect("a certificate");
        roots.add(own.der().clone()).expect("a certificate");
        roots
    }
}

/// A server with this certificate, which asks for client certificates of `clients`, or requires
/// them.
fn server(leaf: &Leaf, clients: Option<(&Authority, bool)>) -> ServerConfig {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3");
    let builder = match clients {
        Some((authority, required)) => {
            let roots = Arc::new(authority.roots());
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
            let verifier = if required {
                verifier
            } else {
                verifier.allow_unauthenticated()
            };
            builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
        }
        None => builder.with_no_client_auth(),
    };
    builder
        .with_single_cert(vec![leaf.cert.clone()], leaf.key.clone_key())
        .expect("the key is the certificate's")
}

/// A client that trusts `authority` and shows this certificate.
fn client(authority: &Authority, own: Option<&Leaf>) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(authority.roots());
    match own {
        Some(leaf) => builder
            .with_client_auth_cert(vec![leaf.cert.clone()], leaf.key.clone_key())
            .expect("the key is the certificate's"),
        None => builder.with_no_client_auth(),
    }
}

fn pair(server: ServerConfig, client: ClientConfig) -> Pair {
    let mut pair = Pair::new(Setup::default());
    let mut config = EndpointConfig::new([9; 32]);
    config.server = Some(Arc::new(server));
    pair.sides[SERVER].endpoint = Endpoint::new(config).expect("a valid configuration");
    pair.tls = Arc::new(client);
    pair
}

/// msquic GHSA-w5f4, CVE-2026-6328, CVE-2024-2379: a server that is not the one that was asked for
/// is refused with the alert that says why, before a byte of the application leaves.
#[test]
fn ghsa_w5f4_wrong_expired_and_untrusted_servers_are_refused() {
    let ours = Authority::new("ours");
    let cases: [(&str, Leaf, u8); 4] = [
        (
            "another's name",
            ours.issue("other.example", |_| {}),
            BAD_CERTIFICATE,
        ),
        (
            "expired",
            ours.issue("localhost", |p| p.not_after = date_time_ymd(2001, 1, 1)),
            CERTIFICATE_EXPIRED,
        ),
        (
            "not valid yet",
            ours.issue("localhost", |p| p.not_before = date_time_ymd(4000, 1, 1)),
            CERTIFICATE_EXPIRED,
        ),
        (
            "untrusted",
            Authority::new("theirs").issue("localhost", |_| {}),
            UNKNOWN_CA,
        ),
    ];
    for (what, leaf, alert) in cases {
        let mut pair = pair(server(&leaf, None), client(&ours, None));
        pair.connect();
        pair.run(2 * SECOND);
        assert!(!pair.saw(CLIENT, &Event::Connected), "{what}");
        assert!(!pair.saw(SERVER, &Event::Connected), "{what}");
        match pair.closed(CLIENT) {
            Some(ConnectionError::PeerMisbehaved(e)) => {
                assert_eq!(e.code.alert(), Some(alert), "{what}: {e:?}");
            }
            other => panic!("{what}: {other:?}"),
        }
        let told = matches!(pair.closed(SERVER),
            Some(ConnectionError::ClosedByPeer { code, .. }) if code.alert() == Some(alert));
        assert!(told, "{what}: {:?}", pair.closed(SERVER));
    }
    // The same with nothing wrong.
    let mut pair = pair(
        server(&ours.issue("localhost", |_| {}), None),
        client(&ours, None),
    );
    pair.connected();
}

/// A ServerHello that picks a cipher suite which was not offered, or one that does not exist.
#[test]
fn ghsa_w5f4_a_suite_that_was_not_offered_is_refused() {
    for suite in [[0x13, 0x04], [0x13, 0x05], [0x00, 0x2f], [0xff, 0xff]] {
        let mut a = Attack::on_client(Plan::default());
        a.start_server(|_| {});
        let mut hello = a.peer.spaces[0].crypto_out.clone();
        // Type and length 4, version 2, random 32, session ID with its length.
        let at = 4 + 2 + 32 + 1 + usize::from(hello[38]);
        assert_eq!(hello[at], 0x13);
        hello[at..at + 2].copy_from_slice(&suite);
        let d = a.peer.padded_initial(&crypto_frame(0, &hello), 1200);
        a.send(&d);
        let alert = a.blamed().and_then(Code::alert);
        let known = [Some(ILLEGAL_PARAMETER), Some(HANDSHAKE_FAILURE)];
        assert!(known.contains(&alert), "{suite:02x?}: {:?}", a.closed());
    }
}

/// A client that has no suite in common with the server gets its alert and nothing else.
#[test]
fn ghsa_w5f4_no_suite_in_common_ends_the_handshake() {
    let mut a = Attack::on_server(Plan::default());
    let mut hello = a.peer.spaces[0].crypto_out.clone();
    let at = 4 + 2 + 32 + 1 + usize::from(hello[38]);
    let n = usize::from(hello[at]) << 8 | usize::from(hello[at + 1]);
    for pair in hello[at + 2..at + 2 + n].chunks_mut(2) {
        pair.copy_from_slice(&[0x13, 0x05]);
    }
    let d = a.peer.padded_initial(&crypto_frame(0, &hello), 1200);
    a.send(&d);
    assert_eq!(a.blamed().and_then(Code::alert), Some(HANDSHAKE_FAILURE));
}

/// Client certificates: taken and shown to the application where they are asked for.
#[test]
fn client_certificates_are_accepted_and_visible() {
    let ours = Authority::new("ours");
    let leaf = ours.issue("localhost", |_| {});
    let own = ours.issue("someone", |p| {
        p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    for required in [true, false] {
        for shows in [true, false] {
            if required && !shows {
                continue;
            }
            let shown = shows.then_some(&own);
            let mut pair = pair(server(&leaf, Some((&ours, required))), client(&ours, shown));
            let (_, there) = pair.connected();
            let session = pair.conn(SERVER, there).session();
            let seen = session.peer_certificates().map(<[_]>::to_vec);
            assert_eq!(seen, shows.then(|| vec![own.cert.clone()]));
        }
    }
}

/// Without one, with a stranger's, with one that is for servers only: the server never sees a
/// connection, and the client is told.
#[test]
fn client_certificates_that_are_missing_or_wrong_are_refused() {
    let ours = Authority::new("ours");
    let leaf = ours.issue("localhost", |_| {});
    let for_clients = |p: &mut CertificateParams| {
        p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    };
    let stranger = Authority::new("theirs").issue("someone", for_clients);
    let expired = ours.issue("someone", |p| p.not_after = date_time_ymd(2001, 1, 1));
    let not_for_this = ours.issue("someone", |p| {
        p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    let cases = [
        ("none", true, None, Some(CERTIFICATE_REQUIRED)),
        ("a stranger's", true, Some(&stranger), Some(UNKNOWN_CA)),
        (
            "a stranger's where none is needed",
            false,
            Some(&stranger),
            Some(UNKNOWN_CA),
        ),
        ("expired", true, Some(&expired), Some(CERTIFICATE_EXPIRED)),
        ("a server's", true, Some(&not_for_this), None),
    ];
    for (what, required, own, alert) in cases {
        let mut pair = pair(server(&leaf, Some((&ours, required))), client(&ours, own));
        pair.connect();
        pair.run(2 * SECOND);
        assert!(!pair.saw(SERVER, &Event::Connected), "{what}");
        let got = match pair.closed(SERVER) {
            Some(ConnectionError::PeerMisbehaved(e)) => e.code.alert(),
            other => panic!("{what}: {other:?}"),
        };
        assert!(
            got.is_some() && alert.is_none_or(|a| got == Some(a)),
            "{what}: {got:?}"
        );
        let told = matches!(pair.closed(CLIENT),
            Some(ConnectionError::ClosedByPeer { code, .. }) if code.alert() == got);
        assert!(told, "{what}: {:?}", pair.closed(CLIENT));
    }
}

/// And through the async face, over sockets.
#[test]
fn client_certificates_are_visible_in_the_async_face() {
    use corelane::api;
    let ours = Authority::new("ours");
    let leaf = ours.issue("localhost", |_| {});
    let own = ours.issue("someone", |p| {
        p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    let build = |b: api::EndpointBuilder| b.idle(api::Idle::Park).build().expect("an endpoint");
    let tls = Arc::new(server(&leaf, Some((&ours, true))));
    let listen = "127.0.0.1:0".parse().expect("an address");
    let server = build(api::Endpoint::builder().server(tls, listen));
    let known = build(api::Endpoint::builder().client(Arc::new(client(&ours, Some(&own)))));
    let nobody = build(api::Endpoint::builder().client(Arc::new(client(&ours, None))));
    futures_executor::block_on(async {
        let connecting = known.connect(server.local_addr(), "localhost");
        let incoming = server.accept().await.expect("an attempt");
        let accepted = incoming.accept().await.expect("a connection");
        let connected = connecting.await.expect("a connection");
        let seen = accepted.peer_certificates();
        assert_eq!(seen, Some(std::slice::from_ref(&own.cert)));
        let seen = connected.peer_certificates();
        assert_eq!(seen, Some(std::slice::from_ref(&leaf.cert)));
        // Without a certificate the server has no connection to show.
        let connecting = nobody.connect(server.local_addr(), "localhost");
        let incoming = server.accept().await.expect("an attempt");
        assert!(incoming.accept().await.is_err());
        // The client may have been done before it was refused (RFC 8446 §4.4.2.4).
        if let Ok(connection) = connecting.await {
            let why = connection.closed().await;
            let refused = matches!(&why, ConnectionError::ClosedByPeer { code, .. }
                if code.alert() == Some(CERTIFICATE_REQUIRED));
            assert!(refused, "{why:?}");
        }
    });
}

/// RFC 9000 §21.10: copies of a packet with other ECN marks count for nothing.
#[test]
fn rfc9000_21_10_copies_with_other_marks_are_not_counted() {
    let mut a = Attack::server();
    a.ack_all();
    let marks = |a: &Attack| {
        let frames = a.inbox.iter().flat_map(|p| p.frames());
        frames
            .filter_map(|f| match f {
                Frame::Ack(ack) => ack.ecn,
                _ => None,
            })
            .next_back()
    };
    a.ecn = Ecn::Ect0;
    a.one_rtt(&[1]);
    a.one_rtt(&[1]);
    let before = marks(&a).expect("counts");
    let once = a.peer.packet(PacketType::OneRtt, &[1]);
    a.send(&once);
    a.ecn = Ecn::Ce;
    for _ in 0..100 {
        a.send(&once);
    }
    a.ecn = Ecn::Ect0;
    a.one_rtt(&[1]);
    a.one_rtt(&[1]);
    a.run(SECOND);
    let after = marks(&a).expect("counts");
    assert_eq!((after.ect0 - before.ect0, after.ce), (3, before.ce));
    assert_eq!(a.connection().stats().packets_duplicate, 100);
}

/// rustls CVE-2024-11738: a ClientHello in as many pieces as there are bytes, each in a datagram of
/// its own, backwards and doubled.
#[test]
fn cve_2024_11738_a_client_hello_in_single_bytes() {
    let mut a = Attack::on_server(Plan::default());
    let tls = a.identity.client_config(&[]);
    start_client(&mut a, tls);
    let hello = a.peer.spaces[0].crypto_out.clone();
    a.peer.spaces[0].crypto_sent = hello.len();
    for (at, byte) in hello.iter().enumerate().rev() {
        let d = a
            .peer
            .padded_initial(&crypto_frame(at as u64, &[*byte]), 1200);
        a.send(&d);
        a.send(&d);
    }
    a.handshake();
    a.expect_alive();
}
