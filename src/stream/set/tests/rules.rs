//! One rule of RFC 9000 §2 to §4 each.

use super::*;
use crate::stream::{RecvState, SendState};

fn send_state(s: &mut Streams, id: StreamId) -> Option<SendState> {
    let slot = s.find(id)?;
    s.send(slot).map(|h| h.state())
}

fn recv_state(s: &mut Streams, id: StreamId) -> Option<RecvState> {
    let slot = s.find(id)?;
    s.recv(slot).map(|h| h.state())
}

fn first_frame(bytes: &[u8]) -> Frame<'_> {
    Frame::parse(&mut Reader::new(bytes)).unwrap()
}

fn code(r: Result<(), TransportError>) -> Result<(), Code> {
    r.map_err(|e| e.code)
}

#[test]
fn sending_goes_through_the_states_of_section_3_1() {
    let mut s = client();
    let id = s.open(Dir::Uni).unwrap();
    assert_eq!(send_state(&mut s, id), Some(SendState::Ready));
    s.write(id, b"hello").unwrap();
    assert_eq!(send_state(&mut s, id), Some(SendState::Ready));
    let first = send_all(&mut s);
    assert_eq!(send_state(&mut s, id), Some(SendState::Send));
    ack_all(&mut s, &first);
    assert_eq!(send_state(&mut s, id), Some(SendState::Send));
    s.finish(id).unwrap();
    assert_eq!(s.finish(id), Err(WriteError::Finished));
    assert_eq!(s.write(id, b"x"), Err(WriteError::Finished));
    let fin = send_all(&mut s);
    assert_eq!(fin.len(), 1);
    assert_eq!(send_state(&mut s, id), Some(SendState::DataSent));
    ack_all(&mut s, &fin);
    // DataRecvd: done, and forgotten with the event.
    assert_eq!(send_state(&mut s, id), None);
    assert_eq!(s.len(), 1);
    assert_eq!(events(&mut s), [StreamEvent::Finished(id)]);
    assert!(s.is_empty());
    assert_eq!(s.write(id, b"x"), Err(WriteError::Unknown));
}

#[test]
fn a_reset_is_possible_from_every_sending_state() {
    for stage in 0..3 {
        let mut s = client();
        let id = s.open(Dir::Uni).unwrap();
        let mut before = Vec::new();
        s.write(id, &[1; 3000]).unwrap();
        if stage == 1 {
            before = packet(&mut s, 1200).1;
        } else if stage == 2 {
            s.finish(id).unwrap();
            before = send_all(&mut s);
            assert_eq!(send_state(&mut s, id), Some(SendState::DataSent));
        }
        let final_size = s.stats().tx_bytes;
        s.reset(id, 7).unwrap();
        s.reset(id, 8).unwrap();
        assert_eq!(send_state(&mut s, id), Some(SendState::ResetSent));
        assert_eq!(s.write(id, b"x"), Err(WriteError::Reset));
        assert_eq!(s.unacknowledged(id), Some(0));
        assert!(!s.has_data());
        let (bytes, reset) = packet(&mut s, 1200);
        assert_eq!(reset, [SentFrame::ResetStream(id)]);
        // RFC 9000 §4.5: the final size is what was sent, not what was written.
        let expected = ResetStream {
            id: id.0,
            code: 7,
            final_size,
        };
        assert_eq!(first_frame(&bytes), Frame::ResetStream(expected));
        // The fate of data does not matter any more, that of the reset does.
        before.iter().for_each(|f| s.on_lost(*f));
        ack_all(&mut s, &before);
        assert!(!s.wants_to_send());
        s.on_lost(reset[0]);
        let again = send_all(&mut s);
        assert_eq!(again, reset);
        ack_all(&mut s, &again);
        assert!(s.is_empty() && events(&mut s).is_empty());
        // Both are about a stream that is gone.
        s.on_lost(reset[0]);
        ack_all(&mut s, &reset);
        assert!(!s.wants_to_send());
    }
}

#[test]
fn stop_sending_is_answered_with_a_reset_of_its_code() {
    let mut s = client();
    let id = s.open(Dir::Bi).unwrap();
    s.write(id, b"data").unwrap();
    send_all(&mut s);
    s.on_stop_sending(id.0, 99).unwrap();
    s.on_stop_sending(id.0, 98).unwrap();
    assert_eq!(events(&mut s), [StreamEvent::Stopped(id, 99)]);
    assert_eq!(s.write(id, b"x"), Err(WriteError::Stopped(99)));
    assert_eq!(s.finish(id), Err(WriteError::Stopped(99)));
    let sent = send_all(&mut s);
    assert_eq!(sent, [SentFrame::ResetStream(id)]);
    ack_all(&mut s, &sent);
    // The receiving half lives on.
    assert_eq!(recv_state(&mut s, id), Some(RecvState::Recv));
    assert_eq!(s.write(id, b"x"), Err(WriteError::Unknown));
    assert_eq!(s.stats().rx_stops, 1);
}

#[test]
fn receiving_goes_through_the_states_of_section_3_2() {
    let mut s = server();
    let id = uni(0);
    give(&mut s, id, 0, b"abc", false).unwrap();
    assert_eq!(recv_state(&mut s, id), Some(RecvState::Recv));
    let expected = [StreamEvent::Opened(Dir::Uni), StreamEvent::Readable(id)];
    assert_eq!(events(&mut s), expected);
    assert_eq!(s.accept(Dir::Uni), Some(id));
    assert_eq!(s.accept(Dir::Uni), None);
    give(&mut s, id, 6, b"ghi", true).unwrap();
    assert_eq!(recv_state(&mut s, id), Some(RecvState::SizeKnown));
    // Nothing new is readable.
    assert!(events(&mut s).is_empty());
    give(&mut s, id, 3, b"def", false).unwrap();
    assert_eq!(recv_state(&mut s, id), Some(RecvState::DataRecvd));
    assert_eq!(events(&mut s), [StreamEvent::Readable(id)]);
    // A reset after everything arrived takes nothing away.
    give_reset(&mut s, id, 9, 1).unwrap();
    let everything = (b"abcdefghi".to_vec(), Ok(ReadOutcome::Finished));
    assert_eq!(read_all(&mut s, id), everything);
    assert_eq!(s.read(id, &mut [0]), Err(ReadError::Unknown));
    assert!(s.is_empty());
    // Late copies are ignored.
    give(&mut s, id, 3, b"def", false).unwrap();
    give_reset(&mut s, id, 9, 1).unwrap();
    assert!(s.is_empty() && events(&mut s).is_empty());
}

#[test]
fn data_and_end_are_readable_whatever_comes_first() {
    // The end as an empty frame, after all data was read, and before any data came.
    let mut s = server();
    give(&mut s, uni(0), 0, b"abc", false).unwrap();
    assert_eq!(read_all(&mut s, uni(0)).1, Ok(ReadOutcome::Blocked));
    events(&mut s);
    give(&mut s, uni(0), 3, b"", true).unwrap();
    assert_eq!(recv_state(&mut s, uni(0)), Some(RecvState::DataRecvd));
    assert_eq!(events(&mut s), [StreamEvent::Readable(uni(0))]);
    assert_eq!(read_all(&mut s, uni(0)).1, Ok(ReadOutcome::Finished));
    give(&mut s, uni(1), 3, b"", true).unwrap();
    give(&mut s, uni(1), 0, b"abc", false).unwrap();
    assert_eq!(recv_state(&mut s, uni(1)), Some(RecvState::DataRecvd));
    let mut chunks = Vec::new();
    while let Ok(crate::stream::ReadChunk::Data(b)) = s.read_bytes(uni(1), 2) {
        chunks.push(b);
    }
    assert_eq!(chunks, [b"ab".as_slice(), b"c"]);
    events(&mut s);
    assert!(s.is_empty());
}

#[test]
fn a_reset_drops_data_and_is_reported_once() {
    for by_event in [false, true] {
        for size_known in [false, true] {
            let mut s = server();
            let id = uni(1);
            give(&mut s, id, 0, b"abc", false).unwrap();
            if size_known {
                give(&mut s, id, 5, b"fgh", true).unwrap();
            }
            give_reset(&mut s, id, 8, 42).unwrap();
            assert_eq!(recv_state(&mut s, id), Some(RecvState::ResetRecvd));
            // RFC 9000 §4.5: all bytes up to the final size count, and are consumed.
            let stats = s.stats();
            assert_eq!((stats.rx_bytes, stats.rx_bytes_consumed), (8, 8));
            if by_event {
                let expected = [StreamEvent::Opened(Dir::Uni), StreamEvent::Reset(id, 42)];
                assert_eq!(events(&mut s), expected);
            } else {
                assert_eq!(s.read(id, &mut [0; 9]), Err(ReadError::Reset(42)));
                assert_eq!(events(&mut s), [StreamEvent::Opened(Dir::Uni)]);
            }
            assert_eq!(s.read(id, &mut [0; 9]), Err(ReadError::Unknown));
            assert!(s.is_empty());
            give_reset(&mut s, id, 8, 42).unwrap();
            assert_eq!(s.stats().rx_resets, 1);
        }
    }
}

#[test]
fn stop_sending_drops_what_arrives_and_asks_until_the_end_is_known() {
    let mut s = server();
    let id = bidi(0);
    give(&mut s, id, 0, &[1; 400], false).unwrap();
    s.stop_sending(id, 5).unwrap();
    assert_eq!(s.read(id, &mut [0]), Err(ReadError::Stopped));
    assert_eq!(s.stats().rx_bytes_consumed, 400);
    let sent = send_all(&mut s);
    assert_eq!(sent, [SentFrame::StopSending(id)]);
    s.on_lost(sent[0]);
    assert_eq!(send_all(&mut s), sent);
    give(&mut s, id, 400, &[1; 100], false).unwrap();
    assert_eq!(s.stats().rx_bytes_consumed, 500);
    give_reset(&mut s, id, 700, 5).unwrap();
    assert_eq!(s.stats().rx_bytes_consumed, 700);
    assert_eq!(events(&mut s), [StreamEvent::Opened(Dir::Bi)]);
    assert_eq!(recv_state(&mut s, id), None);
    s.on_lost(sent[0]);
    assert!(!s.wants_to_send());

    // The end as a FIN, and stopping when the end is known already.
    let id = bidi(1);
    s.on_stop_sending(id.0, 0).unwrap();
    s.stop_sending(id, 5).unwrap();
    give(&mut s, id, 10, b"x", true).unwrap();
    assert_eq!(recv_state(&mut s, id), None);
    let id = uni(0);
    give(&mut s, id, 10, b"x", true).unwrap();
    s.stop_sending(id, 5).unwrap();
    assert_eq!(s.find(id), None);
    assert_eq!(s.stats().rx_bytes, s.stats().rx_bytes_consumed);
}

#[test]
fn stop_sending_acknowledges_a_reset() {
    let mut s = server();
    give_reset(&mut s, uni(0), 0, 3).unwrap();
    s.stop_sending(uni(0), 5).unwrap();
    assert_eq!(events(&mut s), [StreamEvent::Opened(Dir::Uni)]);
    assert!(s.is_empty());
    assert_eq!(send_all(&mut s), [SentFrame::MaxStreams(Dir::Uni)]);
}

#[test]
fn frames_for_the_wrong_direction_are_stream_state_errors() {
    let wrong = Err(Code::STREAM_STATE_ERROR);
    let mut s = client();
    let mine = s.open(Dir::Uni).unwrap();
    let theirs = StreamId::new(Side::Server, Dir::Uni, 0);
    assert_eq!(give(&mut s, mine, 0, b"x", false), wrong);
    assert_eq!(give_reset(&mut s, mine, 0, 0), wrong);
    assert_eq!(code(s.on_stream_data_blocked(mine.0, 0)), wrong);
    assert_eq!(code(s.on_max_stream_data(theirs.0, 9)), wrong);
    assert_eq!(code(s.on_stop_sending(theirs.0, 9)), wrong);
    // Streams of ours that were not opened.
    let unopened = bidi(3);
    assert_eq!(give(&mut s, unopened, 0, b"x", false), wrong);
    assert_eq!(give_reset(&mut s, unopened, 0, 0), wrong);
    assert_eq!(code(s.on_max_stream_data(unopened.0, 9)), wrong);
    assert_eq!(code(s.on_stop_sending(unopened.0, 9)), wrong);
    assert_eq!(code(s.on_stream_data_blocked(unopened.0, 9)), wrong);
}

#[test]
fn every_frame_opens_a_stream_and_none_beyond_the_limit() {
    let over = Err(Code::STREAM_LIMIT_ERROR);
    let mut s = server();
    assert_eq!(give(&mut s, bidi(4), 0, b"x", false), over);
    assert_eq!(give_reset(&mut s, uni(2), 0, 0), over);
    assert_eq!(code(s.on_max_stream_data(bidi(4).0, 9)), over);
    assert_eq!(code(s.on_stop_sending(bidi(4).0, 9)), over);
    assert_eq!(code(s.on_stream_data_blocked(uni(2).0, 9)), over);
    assert!(s.is_empty());
    assert_eq!(code(s.on_max_stream_data(bidi(3).0, 9)), Ok(()));
    assert_eq!(s.len(), 1);
    assert_eq!(events(&mut s), [StreamEvent::Opened(Dir::Bi)]);
    let accepted: Vec<_> = std::iter::from_fn(|| s.accept(Dir::Bi)).collect();
    assert_eq!(accepted, [bidi(0), bidi(1), bidi(2), bidi(3)]);
    assert_eq!(s.len(), 4);
}

#[test]
fn one_frame_at_the_highest_number_costs_one_stream() {
    let config = StreamConfig {
        max_streams_bidi: 1 << 60,
        ..StreamConfig::default()
    };
    let mut s = streams(Side::Server, &config, &config);
    give(&mut s, bidi((1 << 60) - 1), 0, b"x", false).unwrap();
    assert_eq!((s.len(), s.peer[0].unmade_ranges()), (1, 1));
    assert_eq!(s.accept(Dir::Bi), Some(bidi(0)));
    assert_eq!(s.accept(Dir::Bi), Some(bidi(1)));
}

#[test]
fn final_sizes_hold() {
    let wrong = Err(Code::FINAL_SIZE_ERROR);
    let fresh = || {
        let mut s = server();
        give(&mut s, uni(0), 0, &[0; 100], false).unwrap();
        s
    };
    let ended = || {
        let mut s = fresh();
        give(&mut s, uni(0), 190, &[0; 10], true).unwrap();
        s
    };
    // Below what was received.
    assert_eq!(give(&mut fresh(), uni(0), 0, &[0; 99], true), wrong);
    assert_eq!(give_reset(&mut fresh(), uni(0), 99, 0), wrong);
    // Beyond, or different from, the size that is known.
    assert_eq!(give(&mut ended(), uni(0), 200, &[0; 1], false), wrong);
    assert_eq!(give(&mut ended(), uni(0), 200, &[0; 1], true), wrong);
    assert_eq!(give(&mut ended(), uni(0), 198, &[0; 1], true), wrong);
    assert_eq!(give_reset(&mut ended(), uni(0), 201, 0), wrong);
    assert_eq!(give_reset(&mut ended(), uni(0), 199, 0), wrong);
    // The same size again is no error, and after a reset too.
    let mut s = ended();
    give(&mut s, uni(0), 199, &[0; 1], true).unwrap();
    give_reset(&mut s, uni(0), 200, 0).unwrap();
    give_reset(&mut s, uni(0), 200, 0).unwrap();
    assert_eq!(give_reset(&mut s, uni(0), 201, 0), wrong);
    assert_eq!(give(&mut s, uni(0), 200, &[0; 1], false), wrong);
}

#[test]
fn flow_control_holds_to_the_byte() {
    let over = Err(Code::FLOW_CONTROL_ERROR);
    let mut s = server();
    give(&mut s, bidi(0), 999, &[0; 1], false).unwrap();
    assert_eq!(give(&mut s, bidi(0), 1000, &[0; 1], false), over);
    assert_eq!(give_reset(&mut server(), bidi(0), 1001, 0), over);
    let top = (1 << 62) - 2;
    assert_eq!(give(&mut server(), bidi(0), top, &[0; 1], false), over);
    // The connection's limit: 2500 over streams of 1000 each, resets included.
    let mut s = server();
    give(&mut s, bidi(0), 999, &[0; 1], false).unwrap();
    give(&mut s, bidi(1), 0, &[0; 1000], false).unwrap();
    give(&mut s, uni(0), 400, &[0; 100], true).unwrap();
    assert_eq!(give(&mut s, uni(1), 0, &[0; 1], false), over);
    let mut s = server();
    give(&mut s, bidi(0), 999, &[0; 1], false).unwrap();
    give(&mut s, bidi(1), 999, &[0; 1], false).unwrap();
    assert_eq!(give_reset(&mut s, bidi(2), 501, 0), over);
}

#[test]
fn credit_is_announced_as_the_application_reads() {
    let mut s = server();
    let id = bidi(0);
    give(&mut s, id, 0, &[0; 1000], false).unwrap();
    assert!(!s.wants_to_send());
    s.read(id, &mut [0; 499]).unwrap();
    assert!(!s.wants_to_send());
    s.read(id, &mut [0; 1]).unwrap();
    let (bytes, sent) = packet(&mut s, 1200);
    assert_eq!(sent, [SentFrame::MaxStreamData(id)]);
    let max = |max| Frame::MaxStreamData { id: id.0, max };
    // Half the window was consumed at once, so it doubled.
    assert_eq!(first_frame(&bytes), max(500 + 2000));
    // A lost one is repeated with the value of then.
    s.read(id, &mut [0; 400]).unwrap();
    s.on_lost(sent[0]);
    let (bytes, _) = packet(&mut s, 1200);
    assert_eq!(first_frame(&bytes), max(900 + 2000));
    give(&mut s, id, 1000, &[0; 500], false).unwrap();
    s.read(id, &mut [0; 1000]).unwrap();
    let (bytes, sent) = packet(&mut s, 1200);
    assert_eq!(sent, [SentFrame::MaxData]);
    assert_eq!(first_frame(&bytes), Frame::MaxData(1500 + 5000));
    // No credit for a stream whose size is known.
    give(&mut s, id, 1500, &[0; 1400], true).unwrap();
    s.read(id, &mut [0; 1400]).unwrap();
    let is_max_data = |f: &SentFrame| matches!(f, SentFrame::MaxData);
    assert!(send_all(&mut s).iter().all(is_max_data));
    s.on_lost(SentFrame::MaxStreamData(id));
    assert!(!s.has_control());
}

#[test]
fn closed_streams_make_room_for_new_ones() {
    let mut s = server();
    give(&mut s, uni(0), 0, b"", true).unwrap();
    for index in 0..20 {
        // One of two is always open.
        give(&mut s, uni(index + 1), 0, b"", true).unwrap();
        let over = Err(Code::STREAM_LIMIT_ERROR);
        assert_eq!(give(&mut s, uni(index + 2), 0, b"", true), over);
        assert_eq!(s.read(uni(index), &mut [0]), Ok(ReadOutcome::Finished));
        assert_eq!(send_all(&mut s), [SentFrame::MaxStreams(Dir::Uni)]);
        assert_eq!(s.len(), 1);
    }
    assert_eq!(s.accept(Dir::Uni), Some(uni(20)));
    assert_eq!(s.accept(Dir::Uni), None);
    // Nothing to give.
    s.on_streams_blocked(Dir::Uni, 22);
    assert!(!s.has_control());
    s.on_lost(SentFrame::MaxStreams(Dir::Uni));
    assert_eq!(send_all(&mut s), [SentFrame::MaxStreams(Dir::Uni)]);
    // An event that was not reported keeps a stream, and so the peer from opening another.
    give_reset(&mut s, uni(21), 0, 1).unwrap();
    assert_eq!(s.len(), 2);
    assert_eq!(
        give_reset(&mut s, uni(22), 0, 1),
        Err(Code::STREAM_LIMIT_ERROR)
    );
    events(&mut s);
    assert_eq!(send_all(&mut s), [SentFrame::MaxStreams(Dir::Uni)]);
    assert_eq!(give_reset(&mut s, uni(22), 0, 1), Ok(()));
}

#[test]
fn a_blocked_peer_hears_of_room_at_once() {
    let config = StreamConfig {
        max_streams_uni: 64,
        ..StreamConfig::default()
    };
    let mut s = streams(Side::Server, &config, &config);
    give(&mut s, uni(0), 0, b"", true).unwrap();
    s.read(uni(0), &mut [0]).unwrap();
    events(&mut s);
    assert!(s.is_empty() && !s.has_control());
    s.on_streams_blocked(Dir::Uni, 64);
    let (bytes, _) = packet(&mut s, 1200);
    let expected = Frame::MaxStreams {
        dir: Dir::Uni,
        max: 65,
    };
    assert_eq!(first_frame(&bytes), expected);
}

#[test]
fn opening_waits_for_the_peers_limit_and_says_so() {
    let mut s = Streams::new(Side::Client, &small());
    assert_eq!(s.open(Dir::Uni), Err(OpenError::Limit));
    assert!(!s.wants_to_send());
    s.set_peer_limits(&params(&small()));
    assert_eq!(events(&mut s), [StreamEvent::Available(Dir::Uni)]);
    assert!(s.open(Dir::Uni).is_ok() && s.open(Dir::Uni).is_ok());
    assert_eq!(s.open(Dir::Uni), Err(OpenError::Limit));
    let sent = send_all(&mut s);
    assert_eq!(sent, [SentFrame::StreamsBlocked(Dir::Uni)]);
    s.on_lost(sent[0]);
    assert_eq!(send_all(&mut s), sent);
    s.on_lost(sent[0]);
    s.on_max_streams(Dir::Uni, 3);
    s.on_max_streams(Dir::Uni, 1);
    assert!(!s.wants_to_send());
    assert_eq!(events(&mut s), [StreamEvent::Available(Dir::Uni)]);
    assert_eq!(s.open(Dir::Uni), Ok(uni(2)));
}

fn is_stream(f: &&SentFrame) -> bool {
    matches!(f, SentFrame::Stream { .. })
}

#[test]
fn sending_stops_at_each_limit_and_says_so_once() {
    let mut s = streams(Side::Client, &StreamConfig::default(), &small());
    let id = s.open(Dir::Bi).unwrap();
    s.write(id, &[1; 5000]).unwrap();
    let sent = send_all(&mut s);
    assert_eq!(sent.last(), Some(&SentFrame::StreamDataBlocked(id)));
    assert_eq!(s.stats().tx_bytes, 1000);
    s.on_lost(SentFrame::StreamDataBlocked(id));
    assert_eq!(send_all(&mut s), [SentFrame::StreamDataBlocked(id)]);
    s.on_max_stream_data(id.0, 900).unwrap();
    assert!(!s.wants_to_send());
    s.on_max_stream_data(id.0, 5000).unwrap();
    // Now it is the connection that holds it back.
    let sent = send_all(&mut s);
    assert_eq!(sent.last(), Some(&SentFrame::DataBlocked));
    assert_eq!(s.stats().tx_bytes, 2500);
    s.on_lost(SentFrame::StreamDataBlocked(id));
    assert!(!s.wants_to_send());
    // What is lost is sent again without credit.
    let lost = *sent.iter().find(is_stream).unwrap();
    s.on_lost(lost);
    assert_eq!(send_all(&mut s).iter().filter(is_stream).count(), 1);
    assert_eq!(s.stats().tx_bytes, 2500);
    // So is a bare FIN.
    let other = s.open(Dir::Uni).unwrap();
    s.finish(other).unwrap();
    let fin = SentFrame::Stream {
        id: other,
        offset: 0,
        len: 0,
        fin: true,
    };
    assert_eq!(send_all(&mut s), [fin]);
    s.on_max_data(2400);
    assert!(!s.wants_to_send());
    s.on_lost(SentFrame::DataBlocked);
    s.on_max_data(10_000);
    assert!(send_all(&mut s).iter().all(|f| is_stream(&f)));
    assert_eq!(s.stats().tx_bytes, 5000);
    s.on_lost(SentFrame::DataBlocked);
    assert!(!s.wants_to_send());
}

#[test]
fn the_send_buffer_is_bounded_and_tells_of_room() {
    let mut s = streams(Side::Client, &small(), &StreamConfig::default());
    let id = s.open(Dir::Uni).unwrap();
    assert_eq!(s.write(id, &[1; 1000]), Ok(1000));
    assert_eq!(s.write_bytes(id, Bytes::from(vec![2; 1000])), Ok(500));
    assert_eq!(s.write_bytes(id, Bytes::from(vec![2; 1000])), Ok(0));
    assert_eq!(s.unacknowledged(id), Some(1500));
    let sent = packet(&mut s, 600).1;
    ack_all(&mut s, &sent);
    assert!(events(&mut s).is_empty());
    let sent = send_all(&mut s);
    ack_all(&mut s, &sent);
    assert_eq!(events(&mut s), [StreamEvent::Writable(id)]);
    assert_eq!(s.write(id, &[1; 1000]), Ok(1000));
}

#[test]
fn remembered_limits_rise_when_the_real_ones_come() {
    let mut s = streams(Side::Client, &StreamConfig::default(), &small());
    let id = s.open(Dir::Bi).unwrap();
    s.write(id, &[0; 1100]).unwrap();
    send_all(&mut s);
    s.set_peer_limits(&params(&StreamConfig::default()));
    assert!(s.has_data());
    send_all(&mut s);
    assert_eq!(s.stats().tx_bytes, 1100);
}

#[test]
fn a_packet_is_filled_to_the_last_byte() {
    for size in 60..140 {
        let mut s = client();
        let (a, b) = (s.open(Dir::Bi).unwrap(), s.open(Dir::Bi).unwrap());
        s.write(a, &[1; 60]).unwrap();
        s.write(b, &[2; 70]).unwrap();
        s.finish(a).unwrap();
        let config = StreamConfig::default();
        let mut receiver = streams(Side::Server, &config, &config);
        while s.wants_to_send() {
            let (bytes, sent) = packet(&mut s, size);
            if s.has_data() {
                // What is left did not fit: at most a fragment not worth a frame.
                assert!(bytes.len() + 22 > size, "{} of {size}", bytes.len());
            }
            assert!(sent.len() <= 3);
            input(&mut receiver, Timestamp::ZERO, &bytes, &mut BufferAll).unwrap();
        }
        assert_eq!(
            read_all(&mut receiver, a).0,
            vec![1; 60],
            "packets of {size}"
        );
        assert_eq!(
            read_all(&mut receiver, b).0,
            vec![2; 70],
            "packets of {size}"
        );
    }
}

#[test]
fn too_many_gaps_are_a_protocol_violation() {
    let config = StreamConfig::default();
    let mut s = streams(Side::Server, &config, &config);
    let results: Vec<_> = (0..=limits::STREAM_GAPS as u64)
        .map(|i| give(&mut s, bidi(0), 1 + 2 * i, b"x", false))
        .collect();
    let (last, rest) = results.split_last().unwrap();
    assert!(rest.iter().all(Result::is_ok));
    assert_eq!(*last, Err(Code::PROTOCOL_VIOLATION));
}

#[test]
fn records_of_streams_that_never_were_or_are_gone_mean_nothing() {
    let mut s = client();
    let server_bidi = StreamId::new(Side::Server, Dir::Bi, 3);
    for id in [bidi(0), uni(7), server_bidi, StreamId(u64::MAX >> 2)] {
        let stream = SentFrame::Stream {
            id,
            offset: u64::MAX,
            len: u32::MAX,
            fin: true,
        };
        for frame in [
            stream,
            SentFrame::ResetStream(id),
            SentFrame::StopSending(id),
            SentFrame::MaxStreamData(id),
            SentFrame::StreamDataBlocked(id),
        ] {
            s.on_lost(frame);
            s.on_acked(frame);
        }
    }
    assert!(!s.wants_to_send() && s.poll_event().is_none());
}

#[test]
fn a_thousand_idle_streams_own_no_buffers() {
    let mut s = client();
    let ids: Vec<_> = (0..1000).map(|_| s.open(Dir::Bi).unwrap()).collect();
    for id in &ids {
        s.write(*id, b"ping").unwrap();
    }
    let sent = send_all(&mut s);
    assert_eq!(sent.len(), 1000);
    ack_all(&mut s, &sent);
    for id in ids {
        assert_eq!(s.unacknowledged(id), Some(0));
        let slot = s.find(id).unwrap();
        assert!(s.send(slot).unwrap().memory() <= 1024);
        assert!(s.recv(slot).unwrap().assembler.is_none());
    }
    assert!(size_of::<Slot>() <= 448, "{} bytes", size_of::<Slot>());
}
