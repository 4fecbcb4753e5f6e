//! Whom we can be made to send to, and how much: never more than three times what came, whatever
//! the answer is.

use crate::common::attack::{Attack, Plan};
use crate::common::raw_peer::{crypto_frame, payload};
use crate::parser::cid;
use corelane::base::Rng;
use corelane::conn::Decision;
use corelane::wire::header::{self, VERSION_1};
use std::time::Duration;

/// RFC 9000 §21.3, §8.1: every kind of answer to somebody unproven, at every size.
#[test]
fn rfc9000_21_3_no_answer_is_three_times_its_question() {
    let decisions = [
        Decision::Accept,
        Decision::Refuse,
        Decision::Retry,
        Decision::Ignore,
        Decision::Hold,
    ];
    let mut rng = Rng::from_u64(213);
    for decision in decisions {
        let mut a = Attack::on_server(Plan::default());
        a.app.decision = Some(decision);
        for n in 0..60 {
            a.new_client(n);
            let (asked, answered) = (a.sent_to_endpoint, a.sent_by_endpoint);
            let hello = a.peer.flight().remove(0);
            a.send(&hello);
            a.run(Duration::from_secs(rng.below(30)));
            let (asked, answered) = (a.sent_to_endpoint - asked, a.sent_by_endpoint - answered);
            assert!(
                answered <= 3 * asked,
                "{decision:?}: {answered} after {asked}"
            );
        }
    }
    // Strays: unknown versions, short headers, noise.
    let mut a = Attack::on_server(Plan::default());
    for n in 0..5000u64 {
        let mut junk = vec![0; 1 + rng.below(1500) as usize];
        rng.fill(&mut junk);
        junk[0] = [0x40, 0xc0, 0xd0, 0xf0][(n % 4) as usize];
        let (asked, answered) = (a.sent_to_endpoint, a.sent_by_endpoint);
        a.send(&junk);
        let (asked, answered) = (a.sent_to_endpoint - asked, a.sent_by_endpoint - answered);
        assert!(
            answered <= asked,
            "{answered} after {asked}: {:02x}",
            junk[0]
        );
    }
}

/// RFC 9000 §10.2.1, §8.1: an endpoint that closes answers within the limit too.
#[test]
fn rfc9000_10_2_1_a_closing_server_answers_within_the_limit() {
    let mut a = Attack::on_server(Plan::default());
    let bad = a.peer.padded_initial(&crypto_frame(0, &[9; 100]), 1200);
    a.send(&bad);
    assert!(a.blamed().is_some());
    let to = a.peer.dcid;
    let mut small = vec![0x40];
    small.extend(to.as_slice());
    small.extend([7; 21]);
    for _ in 0..2000 {
        a.send(&small);
        assert!(a.sent_by_endpoint <= 3 * a.sent_to_endpoint);
    }
}

/// RFC 9000 §21.3: many addresses at once; the sum is bounded as each is.
#[test]
fn rfc9000_21_3_the_limit_holds_for_all_addresses_together() {
    let mut a = Attack::on_server(Plan::default());
    for n in 0..200u32 {
        a.new_client(u64::from(n));
        let hello = a.peer.flight().remove(0);
        let from = std::net::SocketAddr::from(((0x0a00_0000 | n).to_be_bytes(), 4000));
        a.send_from(from, &hello);
    }
    a.run(Duration::from_secs(60));
    assert!(a.sent_by_endpoint <= 3 * a.sent_to_endpoint);
    assert!(a.endpoint.is_empty());
}

/// RFC 9000 §21.11, §10.3.3: resets are smaller than what they answer, so that two endpoints which
/// both forgot do not answer each other for ever.
#[test]
fn rfc9000_10_3_3_resets_do_not_go_round() {
    let mut a = Attack::on_server(Plan::default());
    let mut datagram = vec![0x40];
    datagram.extend([7; 1199]);
    let mut rounds = 0;
    loop {
        a.datagrams.clear();
        a.send(&datagram);
        let Some((_, answer)) = a.datagrams.pop() else {
            break;
        };
        assert!(answer.len() < datagram.len());
        datagram = answer;
        rounds += 1;
        assert!(rounds < 1200);
    }
}

/// RFC 9000 §6.1, §17.2.1: Version Negotiation is not answered with Version Negotiation, nor with
/// anything else.
#[test]
fn rfc9000_6_1_version_negotiation_is_not_answered() {
    let mut a = Attack::on_server(Plan::default());
    for versions in [&[VERSION_1][..], &[0x1a2a_3a4a]] {
        let mut vn = payload(|w| {
            let (to, from) = (cid(1), cid(2));
            header::write_version_negotiation(w, 0, to.as_slice(), from.as_slice(), versions);
        });
        vn.resize(1200, 0);
        a.send(&vn);
    }
    assert_eq!((a.datagrams.len(), a.endpoint.len()), (0, 0));
}
