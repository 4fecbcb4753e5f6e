//! Each judgement finds what it is there to find, in traces made by hand.

use super::*;
use crate::trace::{ClientHello, Handshake};
use corelane_relay::{Counts, Entry};

fn packet(direction: Direction, kind: Kind, frames: &[Frame]) -> Packet {
    Packet {
        connection: 0,
        at: Duration::ZERO,
        direction,
        fate: Fate::Delivered,
        ecn: 0,
        rebound: 0,
        front: 0,
        kind,
        version: 1,
        dcid: vec![1],
        token: Vec::new(),
        number: Some(0),
        generation: 0,
        frames: frames.to_vec(),
    }
}

fn up(kind: Kind, frames: &[Frame]) -> Packet {
    packet(Direction::Up, kind, frames)
}

fn down(kind: Kind, frames: &[Frame]) -> Packet {
    packet(Direction::Down, kind, frames)
}

fn stream(len: u64) -> Frame {
    let (id, offset) = (0, 0);
    Frame::Stream { id, offset, len }
}

fn answered_by(suites: &[u16]) -> Handshake {
    Handshake {
        client: Some(ClientHello {
            random: vec![0; 32],
            suites: suites.to_vec(),
            parameters: Vec::new(),
        }),
        suite: Some(0x1301),
        ..Handshake::default()
    }
}

fn judge_log(check: Check, packets: Vec<Packet>, handshakes: Vec<Handshake>, log: &Log) -> Verdict {
    check(&Evidence {
        log,
        trace: Trace {
            packets,
            handshakes,
            undecrypted: 0,
        },
        requests: 100,
    })
}

/// One ordinary handshake.
fn judge(check: Check, packets: Vec<Packet>) -> Verdict {
    judge_log(
        check,
        packets,
        vec![answered_by(&[0x1303])],
        &Log::default(),
    )
}

#[test]
fn handshakes_are_counted_and_retries_noticed() {
    assert!(judge(handshake, vec![]).is_ok());
    assert!(judge(handshake, vec![down(Kind::Retry, &[])]).is_err());
    let two = vec![answered_by(&[]), answered_by(&[])];
    assert!(judge_log(one_handshake, vec![], two, &Log::default()).is_err());
    assert!(judge(fifty_handshakes, vec![]).is_err());
}

#[test]
fn windows_must_grow() {
    assert!(judge(transfer, vec![down(Kind::OneRtt, &[Frame::Credit(1)])]).is_err());
    assert!(judge(transfer, vec![up(Kind::OneRtt, &[Frame::Credit(1)])]).is_ok());
}

#[test]
fn a_long_path_shows_two_hellos() {
    let hello = || {
        let data = vec![1];
        up(Kind::Initial, &[Frame::Crypto { offset: 0, data }])
    };
    assert!(judge(long_rtt, vec![hello()]).is_err());
    assert!(judge(long_rtt, vec![hello(), hello()]).is_ok());
}

#[test]
fn other_suites_are_noticed() {
    assert!(judge(chacha20, vec![]).is_ok());
    let both = vec![answered_by(&[0x1303, 0x1301])];
    assert!(judge_log(chacha20, vec![], both, &Log::default()).is_err());
}

#[test]
fn too_many_streams_are_noticed() {
    let limit = |value: &[u8]| {
        let mut handshake = answered_by(&[]);
        handshake.server_parameters = vec![(INITIAL_MAX_STREAMS_BIDI, value.to_vec())];
        judge_log(multiplexing, vec![], vec![handshake], &Log::default())
    };
    assert!(limit(&[0x43, 0xe8]).is_ok());
    assert!(limit(&[0x43, 0xe9]).is_err());
    assert!(judge(multiplexing, vec![]).is_err());
}

#[test]
fn frames_of_paths_that_one_side_does_not_know_are_noticed() {
    let run = |sides: [bool; 2], frame| {
        let mut handshake = answered_by(&[]);
        let offer = |offers: bool| offers.then(|| (INITIAL_MAX_PATH_ID, vec![3]));
        handshake.server_parameters.extend(offer(sides[1]));
        let client = handshake.client.as_mut().unwrap();
        client.parameters.extend(offer(sides[0]));
        let packets = vec![down(Kind::OneRtt, &[Frame::Other(frame)])];
        judge_log(one_path, packets, vec![handshake], &Log::default())
    };
    assert!(run([false, false], 0x01).is_err());
    for sides in [[true, false], [false, true]] {
        assert!(run(sides, 0x01).is_ok());
        assert!(run(sides, 0x3e).is_err());
        assert!(run(sides, 0x3e78).is_err());
    }
    assert!(run([true, true], 0x3e).is_ok());
}

#[test]
fn a_retry_needs_its_token_and_goes_on_counting() {
    let run = |token: &[u8], number| {
        let mut second = up(Kind::Initial, &[]);
        (second.token, second.number) = (token.to_vec(), Some(number));
        judge(
            retry,
            vec![up(Kind::Initial, &[]), down(Kind::Retry, &[]), second],
        )
    };
    assert!(run(b"token", 1).is_ok());
    assert!(run(b"", 1).is_err());
    assert!(run(b"token", 0).is_err());
    assert!(judge(retry, vec![]).is_err());
}

#[test]
fn a_resumed_handshake_shows_no_certificate() {
    let run = |second| {
        let mut both = vec![answered_by(&[]), answered_by(&[])];
        (both[0].certificate, both[1].certificate) = (true, second);
        judge_log(resumption, vec![], both, &Log::default())
    };
    assert!(run(false).is_ok());
    assert!(run(true).is_err());
}

#[test]
fn most_of_the_requests_come_early() {
    let run = |early, late| {
        let mut both = [
            up(Kind::ZeroRtt, &[stream(early)]),
            up(Kind::OneRtt, &[stream(late)]),
        ];
        both.iter_mut().for_each(|p| p.connection = 1);
        let handshakes = vec![answered_by(&[]), answered_by(&[])];
        judge_log(zero_rtt, both.to_vec(), handshakes, &Log::default())
    };
    assert!(run(60, 50).is_ok());
    assert!(run(60, 51).is_err());
    assert!(run(0, 0).is_err());
}

#[test]
fn both_sides_must_update_their_keys() {
    let moved = |mut p: Packet| {
        p.generation = 1;
        p
    };
    let client = moved(up(Kind::OneRtt, &[]));
    let server = moved(down(Kind::OneRtt, &[]));
    assert!(judge(key_update, vec![client.clone(), server]).is_ok());
    assert!(judge(key_update, vec![client]).is_err());
}

#[test]
fn marks_and_counts_go_both_ways_and_nobody_says_ce() {
    let run = |client, server, counts| {
        let largest = 0;
        let ack = [Frame::Ack {
            largest,
            ecn: counts,
        }];
        let mut both = vec![up(Kind::OneRtt, &ack), down(Kind::OneRtt, &ack)];
        (both[0].ecn, both[1].ecn) = (client, server);
        both.push(down(Kind::OneRtt, &[]));
        both[2].ecn = 2;
        judge(ecn, both)
    };
    assert!(run(2, 2, Some([1, 0, 0])).is_ok());
    assert!(run(0, 2, Some([1, 0, 0])).is_err());
    assert!(run(2, 3, Some([1, 0, 0])).is_err());
    assert!(run(2, 2, None).is_err());
}

#[test]
fn version_2_is_reached_from_version_1() {
    let run = |first, last| {
        let mut all = vec![
            up(Kind::Initial, &[]),
            up(Kind::Handshake, &[]),
            down(Kind::Handshake, &[]),
        ];
        (all[0].version, all[1].version, all[2].version) = (first, VERSION_2, last);
        judge(version_2, all)
    };
    assert!(run(1, VERSION_2).is_ok());
    assert!(run(VERSION_2, VERSION_2).is_err());
    assert!(run(1, 1).is_err());
    assert!(judge(version_2, vec![up(Kind::Initial, &[])]).is_err());
}

#[test]
fn more_than_three_times_is_noticed() {
    let entry = |ms, direction, fate, len| Entry {
        at: Duration::from_millis(ms),
        direction,
        flow: 0,
        rebound: 0,
        front: 0,
        ecn: 0,
        fate,
        data: vec![0; len],
    };
    let run = |sent| {
        let log = Log {
            entries: vec![
                entry(0, Direction::Up, Fate::Delivered, 1200),
                entry(20, Direction::Down, Fate::Delivered, sent),
                entry(40, Direction::Up, Fate::Selected, 1200),
            ],
            ..Log::default()
        };
        let mut proof = up(Kind::Handshake, &[]);
        proof.at = Duration::from_millis(50);
        judge_log(amplification, vec![proof], vec![answered_by(&[])], &log)
    };
    assert!(run(3600).is_ok());
    assert!(run(3601).is_err());
}

#[test]
fn the_competing_flow_must_get_through() {
    let run = |arrived| {
        let log = Log {
            down: Counts {
                bytes: 1000,
                ..Counts::default()
            },
            cross: (arrived, 0),
            ..Log::default()
        };
        judge_log(cross_traffic, vec![], vec![answered_by(&[])], &log)
    };
    assert!(run(1).is_ok());
    assert!(run(0).is_err());
}

#[test]
fn a_new_path_begins_with_a_challenge_that_is_answered() {
    let run = |first: &[Frame], answer: &[Frame]| {
        let mut all = vec![down(Kind::OneRtt, &[]), down(Kind::OneRtt, first)];
        all.extend([up(Kind::OneRtt, answer), up(Kind::OneRtt, &[])]);
        all[1].rebound = 1;
        all[3].at = Duration::from_secs(1);
        judge(rebinding, all)
    };
    let (challenge, response) = (Frame::PathChallenge([7; 8]), Frame::PathResponse([7; 8]));
    assert!(run(std::slice::from_ref(&challenge), &[response]).is_ok());
    assert!(run(&[challenge], &[Frame::PathResponse([8; 8])]).is_err());
    assert!(run(&[Frame::Credit(1)], &[]).is_err());
    assert!(judge(rebinding, vec![down(Kind::OneRtt, &[])]).is_err());
}

#[test]
fn a_move_takes_a_new_connection_id_along() {
    let run = |id: u8, front| {
        let mut offered = answered_by(&[]);
        offered.server_parameters = vec![(PREFERRED_ADDRESS, vec![])];
        let data = stream(1);
        let mut all = vec![
            up(Kind::OneRtt, &[]),
            up(Kind::OneRtt, &[]),
            down(Kind::OneRtt, &[data]),
        ];
        (all[1].front, all[2].front, all[1].dcid) = (front, front, vec![id]);
        judge_log(migration, all, vec![offered], &Log::default())
    };
    assert!(run(2, 1).is_ok());
    assert!(run(1, 1).is_err());
    assert!(run(2, 0).is_err());
    assert!(judge(migration, vec![]).is_err());
}
