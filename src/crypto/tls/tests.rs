//! TLS sessions against each other, with good and with bad certificates.

use super::*;
use crate::crypto::testing::{Ca, End, handshake, localhost, ring_provider};
use crate::crypto::{InitialSuite, Key, initial_keys, open, seal, unprotect};
use crate::wire::{Code, Side, header::VERSION_1};
use rcgen::date_time_ymd;
use rustls::crypto::CipherSuiteCommon;
use rustls::crypto::ring::cipher_suite as suites;
use rustls::{CipherSuite, SupportedCipherSuite, Tls13CipherSuite};

fn ends(client: ClientConfig, server: ServerConfig) -> (End, End) {
    ends_for(client, server, localhost())
}

fn ends_for(client: ClientConfig, server: ServerConfig, name: ServerName<'static>) -> (End, End) {
    (
        End::new(Session::client(Arc::new(client), name, b"client's".to_vec()).unwrap()),
        End::new(Session::server(Arc::new(server), b"server's".to_vec()).unwrap()),
    )
}

/// Runs a handshake that must fail and returns the alert with the failing end's session.
fn alert(mut client: End, mut server: End) -> (u8, Session) {
    let (error, session) = match handshake(&mut client, &mut server) {
        Err((Side::Client, error)) => (error, client.session),
        Err((Side::Server, error)) => (error, server.session),
        Ok(()) => panic!("the handshake succeeded"),
    };
    assert!(session.failure().is_some());
    assert!(!error.reason.is_empty());
    (error.code.alert().unwrap(), session)
}

/// Seals with one key and opens with the other.
fn crosses(local: &Key, remote: &Key) -> bool {
    let mut packet = [0; 64];
    packet[0] = 0x43;
    seal(local, 0, 7, &mut packet, 9, 4).unwrap();
    unprotect(remote.header.as_ref(), &mut packet, 9).unwrap();
    open(remote.packet.as_ref(), 0, 7, &mut packet, 13) == Ok(35)
}

#[test]
fn a_handshake_gives_both_ends_the_same_keys() {
    let ca = Ca::new();
    let (mut client, mut server) = ends(ca.client(), ca.server(|_| {}));
    handshake(&mut client, &mut server).unwrap();

    let (client_keys, server_keys) = (client.handshake.unwrap(), server.handshake.unwrap());
    assert!(crosses(&client_keys.local, &server_keys.remote));
    assert!(crosses(&server_keys.local, &client_keys.remote));
    assert!(!crosses(&client_keys.local, &client_keys.remote));
    let (client_app, server_app) = (client.one_rtt.unwrap().0, server.one_rtt.unwrap().0);
    assert!(crosses(&client_app.local, &server_app.remote));
    assert!(crosses(&server_app.local, &client_app.remote));
    assert!(!crosses(&client_app.local, &server_keys.remote));

    let (client, server) = (client.session, server.session);
    assert!(!client.is_handshaking() && !server.is_handshaking());
    assert_eq!(client.peer_params(), Some(&b"server's"[..]));
    assert_eq!(server.peer_params(), Some(&b"client's"[..]));
    assert_eq!(
        (client.alpn(), server.alpn()),
        (Some(&b"test"[..]), Some(&b"test"[..]))
    );
    assert_eq!(
        (client.server_name(), server.server_name()),
        (None, Some("localhost"))
    );
    assert_eq!(client.peer_certificates().map(<[_]>::len), Some(1));
    assert_eq!(server.peer_certificates(), None);
    assert_eq!(
        (client.is_resumed(), server.is_resumed()),
        (Some(false), Some(false))
    );
    assert!(client.cipher_suite().is_some() && client.cipher_suite() == server.cipher_suite());
    assert!(client.failure().is_none());
}

#[test]
fn exported_keying_material_agrees_and_depends_on_every_input() {
    let ca = Ca::new();
    let (mut client, mut server) = ends(ca.client(), ca.server(|_| {}));
    let export = |end: &End, label: &[u8], context: Option<&[u8]>| {
        let mut out = [0; 32];
        end.session
            .export_keying_material(&mut out, label, context)
            .map(|()| out)
    };
    assert_eq!(
        export(&client, b"label", None),
        Err(ExportError::Handshaking)
    );
    handshake(&mut client, &mut server).unwrap();
    let ours = export(&client, b"label", None).unwrap();
    assert_eq!(export(&server, b"label", None), Ok(ours));
    assert_ne!(export(&server, b"other", None), Ok(ours));
    assert_ne!(export(&server, b"label", Some(b"context")), Ok(ours));
    let exported = client
        .session
        .export_keying_material(&mut [], b"label", None);
    assert_eq!(exported, Err(ExportError::Length));
}

/// CRYPTO frames cut TLS messages anywhere.
#[test]
fn bytes_may_come_one_by_one() {
    let ca = Ca::new();
    let (mut client, mut server) = ends(ca.client(), ca.server(|_| {}));
    for _ in 0..4 {
        for byte in client.flights().concat() {
            server.session.read_crypto(&[byte]).unwrap();
        }
        for byte in server.flights().concat() {
            client.session.read_crypto(&[byte]).unwrap();
        }
    }
    assert!(client.one_rtt.is_some() && server.one_rtt.is_some());
}

#[test]
fn certificates_that_do_not_fit_raise_their_alerts() {
    let ca = Ca::new();
    // The alert's name in RFC 8446 §6.2 follows each code.
    let (client, server) = ends_for(
        ca.client(),
        ca.server(|_| {}),
        ServerName::try_from("other.example").unwrap(),
    );
    assert_eq!(
        alert(client, server).0,
        42,
        "bad_certificate: the name differs"
    );

    let (client, server) = ends(Ca::named("another").client(), ca.server(|_| {}));
    assert_eq!(alert(client, server).0, 48, "unknown_ca: no such issuer");

    let (client, server) = ends(Ca::new().client(), ca.server(|_| {}));
    assert_eq!(
        alert(client, server).0,
        51,
        "decrypt_error: an issuer of that name only"
    );

    let (client, server) = ends(
        ca.client(),
        ca.server(|cert| cert.not_after = date_time_ymd(2001, 1, 1)),
    );
    let (code, session) = alert(client, server);
    assert_eq!(code, 45, "certificate_expired");
    assert!(matches!(
        session.failure(),
        Some(Error::InvalidCertificate(_))
    ));

    let (client, server) = ends(
        ca.client(),
        ca.server(|cert| cert.not_before = date_time_ymd(4000, 1, 1)),
    );
    assert_eq!(
        alert(client, server).0,
        45,
        "certificate_expired: not yet valid"
    );
}

#[test]
fn ends_with_nothing_in_common_raise_their_alerts() {
    let ca = Ca::new();
    let mut other = ca.client();
    other.alpn_protocols = vec![b"other".to_vec()];
    let (client, server) = ends(other, ca.server(|_| {}));
    assert_eq!(alert(client, server).0, 120, "no_application_protocol");

    let only = |suite: SupportedCipherSuite| {
        let mut provider = ring_provider();
        provider.cipher_suites = vec![suite];
        provider
    };
    let client = ca.client_with(only(suites::TLS13_AES_128_GCM_SHA256));
    let server = ca.server_with(only(suites::TLS13_CHACHA20_POLY1305_SHA256), |_| {});
    let (client, server) = ends(client, server);
    assert_eq!(
        alert(client, server).0,
        40,
        "handshake_failure: no cipher suite"
    );

    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
        Arc::new(ca.roots()),
        Arc::new(ring_provider()),
    );
    let (chain, key) = ca.issue("localhost", |_| {});
    let mut server = ServerConfig::builder_with_provider(Arc::new(ring_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(chain, key)
        .unwrap();
    server.alpn_protocols = vec![b"test".to_vec()];
    let (client, server) = ends(ca.client(), server);
    assert_eq!(alert(client, server).0, 116, "certificate_required");
}

#[test]
fn every_suite_carries_a_handshake() {
    let ca = Ca::new();
    for suite in ring_provider().cipher_suites {
        let mut provider = ring_provider();
        provider.cipher_suites = vec![suite];
        let (mut client, mut server) = ends(ca.client_with(provider), ca.server(|_| {}));
        handshake(&mut client, &mut server).unwrap();
        assert_eq!(client.session.cipher_suite(), Some(suite.suite()));
        let (client, server) = (client.one_rtt.unwrap().0, server.one_rtt.unwrap().0);
        assert!(crosses(&client.local, &server.remote));
    }
}

/// The extensions of a ClientHello, by number (RFC 8446 §4.1.2).
fn hello_extensions(hello: &[u8]) -> Vec<(u16, &[u8])> {
    // Type, length, legacy_version, random, legacy_session_id, suites, compression methods.
    let mut at = 4 + 2 + 32;
    at += 1 + usize::from(hello[at]);
    at += 2 + usize::from(u16::from_be_bytes([hello[at], hello[at + 1]]));
    at += 1 + usize::from(hello[at]) + 2;
    let mut all = Vec::new();
    while at < hello.len() {
        let number = u16::from_be_bytes([hello[at], hello[at + 1]]);
        let len = usize::from(u16::from_be_bytes([hello[at + 2], hello[at + 3]]));
        all.push((number, &hello[at + 4..at + 4 + len]));
        at += 4 + len;
    }
    all
}

#[test]
fn a_client_hello_offers_tls_1_3_alone_and_no_compatibility_mode() {
    let (client, _) = ends(Ca::new().client(), Ca::new().server(|_| {}));
    let (mut session, mut hello) = (client.session, Vec::new());
    assert!(session.write_crypto(&mut hello).is_none());
    assert_eq!(hello[0], 1, "a ClientHello");
    assert_eq!(
        hello[4 + 2 + 32],
        0,
        "legacy_session_id is empty (RFC 9001 §8.4)"
    );
    let extensions = hello_extensions(&hello);
    let find = |number| {
        extensions
            .iter()
            .find(|(n, _)| *n == number)
            .map(|(_, e)| *e)
    };
    assert_eq!(
        find(43),
        Some(&[2, 3, 4][..]),
        "supported_versions (RFC 9001 §4.2)"
    );
    assert_eq!(
        find(57),
        Some(&b"client's"[..]),
        "quic_transport_parameters (RFC 9001 §8.2)"
    );
    assert_eq!(find(49), None, "post_handshake_auth (RFC 9001 §4.4)");
}

#[test]
fn tls_messages_that_quic_forbids_raise_their_alerts() {
    let ca = Ca::new();
    // RFC 9001 §8.2: a ClientHello, taken out of a TLS record, without transport parameters.
    let config = Arc::new(ca.client());
    let mut over_tcp = rustls::ClientConnection::new(config, localhost()).unwrap();
    let mut record = Vec::new();
    over_tcp.write_tls(&mut record).unwrap();
    let mut server = Session::server(Arc::new(ca.server(|_| {})), Vec::new()).unwrap();
    let error = server.read_crypto(&record[5..]).unwrap_err();
    assert_eq!(error.code, Code::crypto(109), "missing_extension");

    // RFC 9001 §6: TLS KeyUpdate.
    let (mut client, mut server) = ends(ca.client(), ca.server(|_| {}));
    handshake(&mut client, &mut server).unwrap();
    for end in [&mut client, &mut server] {
        let error = end.session.read_crypto(&[24, 0, 0, 1, 0]).unwrap_err();
        assert_eq!(error.code, Code::crypto(10), "unexpected_message");
    }
}

/// RFC 9001 §4.4: client authentication belongs into the handshake.
#[test]
fn a_certificate_request_after_the_handshake_is_a_protocol_violation() {
    let ca = Ca::new();
    let (mut client, mut server) = ends(ca.client(), ca.server(|_| {}));
    handshake(&mut client, &mut server).unwrap();
    // An empty context, and the one extension that it needs: signature_algorithms.
    let request = [13, 0, 0, 11, 0, 0, 8, 0, 13, 0, 4, 0, 2, 0x04, 0x03];
    let error = client.session.read_crypto(&request).unwrap_err();
    assert_eq!(error.code, Code::PROTOCOL_VIOLATION, "{error}");
}

/// RFC 9001 §4.6.1: a ticket allows any amount of early data, or none.
#[test]
fn a_ticket_with_another_limit_of_early_data_is_a_protocol_violation() {
    for (limit, taken) in [(u32::MAX, true), (u32::MAX - 1, false), (16_384, false)] {
        let ca = Ca::new();
        let (mut client, mut server) = ends(ca.client(), ca.server(|_| {}));
        handshake(&mut client, &mut server).unwrap();
        // Lifetime, age, nonce, ticket, and early_data with its limit.
        let mut ticket = vec![4, 0, 0, 25, 0, 0, 1, 0, 0, 0, 0, 0, 1, 9, 0, 1, 9];
        ticket.extend([0, 8, 0, 42, 0, 4]);
        ticket.extend(limit.to_be_bytes());
        ticket[3] = (ticket.len() - 4) as u8;
        let read = client.session.read_crypto(&ticket).map_err(|e| e.code);
        let expected = if taken {
            Ok(())
        } else {
            Err(Code::PROTOCOL_VIOLATION)
        };
        assert_eq!(read, expected, "{limit}");
    }
}

#[test]
fn garbage_fails_and_stays_failed() {
    let ca = Ca::new();
    let (client, server) = (Arc::new(ca.client()), Arc::new(ca.server(|_| {})));
    for ty in 0..=255 {
        let garbage = [ty, 0, 0, 4, 0xff, 0xff, 0xff, 0xff];
        let mut sessions = [
            Session::client(client.clone(), localhost(), Vec::new()).unwrap(),
            Session::server(server.clone(), Vec::new()).unwrap(),
        ];
        for session in &mut sessions {
            let error = session.read_crypto(&garbage).unwrap_err();
            assert!(
                error.code.alert().is_some_and(|alert| alert != 0),
                "{error}"
            );
            assert_eq!(session.read_crypto(&garbage), Err(error));
            assert!(session.is_handshaking());
        }
    }
}

/// A ClientHello cut short is waited for; one with any byte changed never panics.
#[test]
fn a_damaged_client_hello_is_rejected_or_waited_for() {
    let ca = Ca::new();
    let server = Arc::new(ca.server(|_| {}));
    let mut client = Session::client(Arc::new(ca.client()), localhost(), Vec::new()).unwrap();
    let mut hello = Vec::new();
    assert!(client.write_crypto(&mut hello).is_none());
    for at in 0..hello.len() {
        let mut session = Session::server(server.clone(), Vec::new()).unwrap();
        assert_eq!(session.read_crypto(&hello[..at]), Ok(()));
        assert!(session.write_crypto(&mut Vec::new()).is_none());

        let mut damaged = hello.clone();
        damaged[at] ^= 0x41;
        let mut session = Session::server(server.clone(), Vec::new()).unwrap();
        if let Err(error) = session.read_crypto(&damaged) {
            assert!(error.code.alert().is_some());
        }
    }
}

#[test]
fn a_session_with_a_limit_of_early_data_is_a_violation() {
    let alert = AlertDescription::IllegalParameter;
    let error = Error::PeerMisbehaved(PeerMisbehaved::InvalidMaxEarlyDataSize);
    let failure = failure_for(&error, alert);
    assert_eq!(failure.code, crate::wire::Code::PROTOCOL_VIOLATION);
    let other = Error::PeerMisbehaved(PeerMisbehaved::IncorrectBinder);
    let failure = failure_for(&other, alert);
    assert_eq!(failure.code, TransportError::crypto(47, "").code);
}

#[test]
fn early_data_has_keys_on_both_ends() {
    let ca = Ca::new();
    let (mut client, mut server) = (ca.client(), ca.server(|_| {}));
    client.enable_early_data = true;
    server.max_early_data_size = u32::MAX;
    let (client, server) = (Arc::new(client), Arc::new(server));
    let start = || {
        let params = || b"params".to_vec();
        (
            End::new(Session::client(client.clone(), localhost(), params()).unwrap()),
            End::new(Session::server(server.clone(), params()).unwrap()),
        )
    };
    let (mut first, mut peer) = start();
    assert!(first.session.zero_rtt_keys().is_none());
    handshake(&mut first, &mut peer).unwrap();
    assert!(!first.session.early_data_accepted() && !peer.session.early_data_accepted());

    let (mut second, mut peer) = start();
    for flight in second.flights() {
        peer.session.read_crypto(&flight).unwrap();
    }
    let local = second.session.zero_rtt_keys().unwrap();
    let remote = peer.session.zero_rtt_keys().unwrap();
    assert!(crosses(&local, &remote));
    handshake(&mut second, &mut peer).unwrap();
    assert!(second.session.early_data_accepted() && peer.session.early_data_accepted());
    assert_eq!(second.session.is_resumed(), Some(true));
}

#[test]
fn a_client_at_rest_says_what_it_said_before() {
    let ca = Ca::new();
    let config = ca.client();
    let server_config = Arc::new(ca.server(|_| {}));
    let start = |moves: bool| {
        let (version, params) = (wire::Version::V1, b"params".to_vec());
        let session = match moves {
            true => Session::movable_client(version, &config, localhost(), params),
            false => Session::resting_client(version, &config, localhost(), params),
        };
        let server = Session::server(server_config.clone(), Vec::new());
        (End::new(session.unwrap()), End::new(server.unwrap()))
    };
    for (moves, resumed) in [(true, false), (false, true)] {
        let (mut client, mut server) = start(moves);
        client.session.rest();
        assert!(client.session.is_handshaking());
        handshake(&mut client, &mut server).unwrap();
        let said = |session: &Session| {
            let mut out = [0; 32];
            let exported = session.export_keying_material(&mut out, b"label", Some(b"context"));
            let certificates = session.peer_certificates().map(<[_]>::to_vec);
            let alpn = session.alpn().map(<[_]>::to_vec);
            let resumed = (session.is_resumed(), session.early_data_accepted());
            (
                exported.map(|()| out),
                certificates,
                alpn,
                resumed,
                session.cipher_suite(),
            )
        };
        let before = said(&client.session);
        assert_eq!(said(&server.session).0, before.0);
        client.session.finish();
        assert!(
            client.session.peer_params().is_some(),
            "a client is not done when confirmed"
        );
        // Not within a message.
        let served = client.session.after;
        client.session.read_crypto(&[4, 0]).unwrap();
        client.session.rest();
        assert!(matches!(client.session.tls, Tls::Whole(_)));
        client.session.after = served;
        client.session.rest();
        assert!(matches!(client.session.tls, Tls::Done(_)));
        assert_eq!(said(&client.session), before);
        assert_eq!(before.3, (Some(resumed), false));
        // Tickets pass, whole and in parts; nothing else does.
        client.session.read_crypto(&[4, 0, 0, 2, 9]).unwrap();
        client.session.read_crypto(&[9, 4, 0, 0, 0]).unwrap();
        assert!(client.session.write_crypto(&mut Vec::new()).is_none());
        let error = client.session.read_crypto(&[24, 0, 0, 1]).unwrap_err();
        let unexpected = u8::from(AlertDescription::UnexpectedMessage);
        assert_eq!(error.code, TransportError::crypto(unexpected, "").code);
    }
}

/// A provider whose AES-128-GCM suite, its only one, is `quic` or not.
fn aes_128_only(quic: bool) -> rustls::crypto::CryptoProvider {
    let ring = suites::TLS13_AES_128_GCM_SHA256.tls13().unwrap();
    let suite = Box::leak(Box::new(Tls13CipherSuite {
        common: CipherSuiteCommon {
            suite: CipherSuite::TLS13_AES_128_GCM_SHA256,
            hash_provider: ring.common.hash_provider,
            confidentiality_limit: ring.common.confidentiality_limit,
        },
        hkdf_provider: ring.hkdf_provider,
        aead_alg: ring.aead_alg,
        quic: ring.quic.filter(|_| quic),
    }));
    let mut provider = ring_provider();
    provider.cipher_suites = vec![SupportedCipherSuite::Tls13(suite)];
    provider
}

#[test]
fn configurations_that_quic_cannot_use_say_what_to_do() {
    let ca = Ca::new();
    let client = Arc::new(ca.client_with(aes_128_only(false)));
    let error = Session::client(client, localhost(), Vec::new()).unwrap_err();
    assert_eq!(error, ConfigError::NoQuicSuite);
    assert!(error.to_string().contains("use a rustls crypto provider"));
    let server = Arc::new(ca.server_with(aes_128_only(false), |_| {}));
    let error = Session::server(server, Vec::new()).unwrap_err();
    assert_eq!(error, ConfigError::NoQuicSuite);

    let mut provider = ring_provider();
    provider.cipher_suites.clear();
    assert_eq!(check_suites(&provider), Err(ConfigError::NoTls13));

    let mut server = ca.server(|_| {});
    server.max_early_data_size = 16384;
    let error = Session::server(Arc::new(server), Vec::new()).unwrap_err();
    assert_eq!(error, ConfigError::EarlyDataSize(16384));
    assert!(error.to_string().contains("set it to one of them"));
}

#[test]
fn initial_keys_exist_whatever_the_provider_offers() {
    let ca = Ca::new();
    let mut chacha = ring_provider();
    chacha.cipher_suites = vec![suites::TLS13_CHACHA20_POLY1305_SHA256];
    let dcid = [1; 8];
    let ring = initial_keys(VERSION_1, &dcid, Side::Server).unwrap();
    for provider in [chacha, aes_128_only(false), aes_128_only(true)] {
        let client = InitialSuite::of_client(&ca.client_with(provider.clone())).unwrap();
        let keys = client.keys(VERSION_1, &dcid, Side::Client).unwrap();
        assert!(crosses(&keys.local, &ring.remote));
        let server = InitialSuite::of_server(&ca.server_with(provider, |_| {})).unwrap();
        let keys = server.keys(VERSION_1, &dcid, Side::Client).unwrap();
        assert!(crosses(&ring.local, &keys.remote));
    }
}
