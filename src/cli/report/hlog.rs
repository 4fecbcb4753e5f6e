//! `.hlog`: one compressed histogram per interval, in HdrHistogram's log format 1.3, so that
//! HistogramLogProcessor and HistogramLogAnalyzer open it.
//!
//! The caller gives the wall-clock time of the start; intervals count from there.

use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{
    IntervalLogWriter, IntervalLogWriterBuilder, IntervalLogWriterError, Tag,
};

use super::hist::Latency;

/// A log that is being written.
pub struct Hlog<'a, W: Write> {
    log: IntervalLogWriter<'a, 'a, W, V2DeflateSerializer>,
}

impl<'a, W: Write> Hlog<'a, W> {
    /// Writes the header. `comment` says what was measured; the interval's maximum, which only
    /// people read, is in milliseconds as in logs of other programs.
    pub fn begin(
        out: &'a mut W,
        serializer: &'a mut V2DeflateSerializer,
        start: SystemTime,
        comment: &str,
    ) -> io::Result<Self> {
        let mut builder = IntervalLogWriterBuilder::new();
        builder.add_comment("[Histogram log format version 1.3]");
        builder.add_comment(comment);
        builder.add_comment("[values in nanoseconds, Interval_Max in milliseconds]");
        builder
            .with_start_time(start)
            .with_base_time(start)
            .with_max_value_divisor(1e6);
        Ok(Self {
            log: builder.begin_log_with(out, serializer)?,
        })
    }

    /// Appends what was recorded in `length` from `from` (since the start). A tag separates
    /// several series of one log; characters that a tag may not contain become `_`.
    pub fn interval(
        &mut self,
        latency: &Latency,
        from: Duration,
        length: Duration,
        tag: Option<&str>,
    ) -> io::Result<()> {
        let tag = tag.map(|t| t.replace([',', ' ', '\r', '\n'], "_"));
        let tag = tag.as_deref().and_then(Tag::new);
        self.log
            .write_histogram(latency.histogram(), from, length, tag)
            .map_err(|e| match e {
                IntervalLogWriterError::IoError(e) => e,
                IntervalLogWriterError::SerializeError(e) => io::Error::other(e),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::Histogram;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    fn log() -> Vec<u8> {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let mut latency = Latency::new();
        latency.record_ns(2_500_000);
        let (mut out, mut serializer) = (Vec::new(), V2DeflateSerializer::new());
        let mut hlog = Hlog::begin(&mut out, &mut serializer, start, "request/response").unwrap();
        let second = Duration::from_secs(1);
        hlog.interval(&latency, Duration::ZERO, second, None)
            .unwrap();
        hlog.interval(&Latency::new(), second, second, Some("a b,c"))
            .unwrap();
        out
    }

    #[test]
    fn the_header_says_what_readers_look_for() {
        let log = String::from_utf8(log()).unwrap();
        let lines: Vec<&str> = log.lines().collect();
        assert_eq!(lines[0], "#[Histogram log format version 1.3]");
        assert_eq!(lines[1], "#request/response");
        assert_eq!(
            lines[3],
            "#[StartTime: 1700000000.000 (seconds since epoch)]"
        );
        assert_eq!(
            lines[4],
            "#[BaseTime: 1700000000.000 (seconds since epoch)]"
        );
        assert!(lines[6].starts_with("0.000,1.000,2.50"), "{}", lines[6]);
        assert!(
            lines[7].starts_with("Tag=a_b_c,1.000,1.000,0.000,"),
            "{}",
            lines[7]
        );
    }

    #[test]
    fn a_reader_gets_the_histograms_back() {
        let log = log();
        let entries = IntervalLogIterator::new(&log).map(|e| e.expect("a line that parses"));
        let counts: Vec<u64> = entries
            .filter_map(|entry| match entry {
                LogEntry::Interval(interval) => Some(interval.encoded_histogram().to_string()),
                _ => None,
            })
            .map(|text| {
                let bytes = decode_base64(&text);
                let histogram: Histogram<u64> = Deserializer::new()
                    .deserialize(&mut bytes.as_slice())
                    .unwrap();
                histogram.len()
            })
            .collect();
        assert_eq!(counts, [1, 0]);
    }

    fn decode_base64(text: &str) -> Vec<u8> {
        const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let (mut out, mut bits, mut held) = (Vec::new(), 0u32, 0);
        for b in text.bytes().filter(|b| *b != b'=') {
            let digit = ALPHABET.iter().position(|a| *a == b).expect("base64");
            (bits, held) = (bits << 6 | digit as u32, held + 6);
            if held >= 8 {
                held -= 8;
                out.push((bits >> held) as u8);
            }
        }
        out
    }
}
