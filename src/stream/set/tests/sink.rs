//! Received bytes offered to the application straight from the packet.

use super::*;

/// Takes at most so many bytes of each offer, and notes what it saw.
struct Taker {
    limit: usize,
    got: Vec<u8>,
    ended: bool,
    on_data: fn(&mut Streams, StreamId),
}

impl Taker {
    fn new(limit: usize) -> Self {
        Self {
            limit,
            got: Vec::new(),
            ended: false,
            on_data: |_, _| {},
        }
    }
}

impl StreamSink for Taker {
    fn on_stream_data(&mut self, s: &mut Streams, id: StreamId, data: &[u8], fin: bool) -> Taken {
        if !data.is_empty() {
            // Nothing is readable during the call, or order would be lost.
            assert_eq!(s.read(id, &mut [0; 4]), Ok(ReadOutcome::Blocked));
        }
        (self.on_data)(s, id);
        let n = self.limit.min(data.len());
        self.got.extend_from_slice(&data[..n]);
        if n < data.len() {
            return Taken::Prefix(n);
        }
        self.ended |= fin;
        Taken::All
    }
}

fn offer(s: &mut Streams, sink: &mut Taker, id: StreamId, at: u64, data: &[u8], fin: bool) {
    let frame = stream_frame(id, at, data, fin);
    s.at(Timestamp::ZERO, RTT);
    s.on_stream(&frame, sink).unwrap();
}

#[test]
fn a_sink_takes_everything_without_a_buffer() {
    let mut s = server();
    let mut sink = Taker::new(usize::MAX);
    offer(&mut s, &mut sink, uni(0), 0, b"ab", false);
    assert!(s.recv(0).unwrap().assembler.is_none());
    offer(&mut s, &mut sink, uni(0), 4, b"ef", true);
    offer(&mut s, &mut sink, uni(0), 1, b"bcd", false);
    assert_eq!(sink.got, b"abcdef");
    assert!(sink.ended);
    assert_eq!(events(&mut s), [StreamEvent::Opened(Dir::Uni)]);
    assert!(s.is_empty());
    // The end alone, and data twice.
    let mut sink = Taker::new(usize::MAX);
    offer(&mut s, &mut sink, uni(1), 0, b"ab", false);
    offer(&mut s, &mut sink, uni(1), 0, b"ab", false);
    assert!(!sink.ended);
    offer(&mut s, &mut sink, uni(1), 0, b"ab", true);
    assert_eq!(sink.got, b"ab");
    assert!(sink.ended);
    assert_eq!(s.stats().rx_bytes, s.stats().rx_bytes_consumed);
}

#[test]
fn what_a_sink_leaves_waits_to_be_read() {
    let mut s = server();
    let mut sink = Taker::new(3);
    offer(&mut s, &mut sink, uni(0), 6, b"ghijkl", false);
    offer(&mut s, &mut sink, uni(0), 3, b"def", false);
    offer(&mut s, &mut sink, uni(0), 0, b"abc", false);
    // "abc" whole, then of "defghijkl" three bytes.
    assert_eq!(sink.got, b"abcdef");
    let expected = [StreamEvent::Opened(Dir::Uni), StreamEvent::Readable(uni(0))];
    assert_eq!(events(&mut s), expected);
    offer(&mut s, &mut sink, uni(0), 12, b"mn", true);
    assert_eq!(sink.got, b"abcdef");
    let rest = (b"ghijklmn".to_vec(), Ok(ReadOutcome::Finished));
    assert_eq!(read_all(&mut s, uni(0)), rest);
    // What there is to read was read before the event was asked for.
    assert!(events(&mut s).is_empty() && s.is_empty());
}

#[test]
fn an_end_that_a_sink_leaves_is_read() {
    let mut s = server();
    give(&mut s, uni(0), 0, b"", true).unwrap();
    let expected = [StreamEvent::Opened(Dir::Uni), StreamEvent::Readable(uni(0))];
    assert_eq!(events(&mut s), expected);
    assert_eq!(s.read(uni(0), &mut [0]), Ok(ReadOutcome::Finished));
    assert!(s.is_empty());
}

#[test]
fn a_sink_may_answer_or_stop_at_once() {
    let verbs: [fn(&mut Streams, StreamId); 4] = [
        |s, id| s.stop_sending(id, 1).unwrap(),
        |s, id| s.reset(id, 1).unwrap(),
        |s, id| assert_eq!(s.write(id, b"answer"), Ok(6)),
        |s, id| {
            // The stream goes and its slot is another's before the call returns.
            s.reset(id, 1).unwrap();
            s.stop_sending(id, 1).unwrap();
            let sent = send_all(s);
            ack_all(s, &sent);
            events(s);
            s.open(Dir::Uni).unwrap();
        },
    ];
    for verb in verbs {
        for (fin, limit) in [(false, 2), (false, 100), (true, 2), (true, 100)] {
            let mut s = server();
            let mut sink = Taker::new(limit);
            sink.on_data = verb;
            // "fgh" has to wait, so the first offer is that of "abcde".
            offer(&mut s, &mut sink, bidi(0), 5, b"fgh", fin);
            let frame = stream_frame(bidi(0), 0, b"abcde", false);
            let mut once = Once(sink);
            s.on_stream(&frame, &mut once).unwrap();
            send_all(&mut s);
            let (rx, consumed) = (s.stats().rx_bytes, s.stats().rx_bytes_consumed);
            assert_eq!(rx, 8);
            assert!(consumed <= rx && consumed >= 2);
            // Whatever was done, later copies are harmless.
            give(&mut s, bidi(0), 0, b"abcdefgh", fin).unwrap();
        }
    }
}

/// Runs its inner sink's verb in the first offer only.
struct Once(Taker);

impl StreamSink for Once {
    fn on_stream_data(&mut self, s: &mut Streams, id: StreamId, data: &[u8], fin: bool) -> Taken {
        let taken = self.0.on_stream_data(s, id, data, fin);
        self.0.on_data = |_, _| {};
        taken
    }
}
