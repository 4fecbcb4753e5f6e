//! Numbers as people write and read them: sizes, rates, counts and durations.
//!
//! Written as iperf3 writes them: three significant digits, bits and counts by 1000, bytes by 1024.
//! Read as iperf3 reads them: `64K` of bytes is 65,536, `10M` of bits per second is 10,000,000.
//! Reading is exact (no floating point) and refuses what it does not understand.

use std::time::Duration;

/// An argument that is not the number it should be; displays as one sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{input}` is not {what}; write a number and a unit, as in {example}")]
pub struct UnitError {
    input: String,
    what: &'static str,
    example: &'static str,
}

/// Reads a size in bytes; K, M, G and T are powers of 1024, `iB` or `B` may follow.
pub fn parse_size(input: &str) -> Result<u64, UnitError> {
    let error = || UnitError {
        input: input.into(),
        what: "a size",
        example: "64K or 1.5G",
    };
    let (number, unit) = split(input).ok_or_else(error)?;
    let unit = unit
        .strip_suffix('B')
        .or_else(|| unit.strip_suffix('b'))
        .unwrap_or(unit);
    let unit = if unit.len() == 2 {
        unit.strip_suffix('i').unwrap_or(unit)
    } else {
        unit
    };
    let scale = magnitude(unit)
        .and_then(|n| 1024u128.checked_pow(n))
        .ok_or_else(error)?;
    number.times(scale).ok_or_else(error)
}

/// Reads a bit rate in bits per second; K, M, G and T are powers of 1000, `bit/s` or `bps` may
/// follow.
pub fn parse_rate(input: &str) -> Result<u64, UnitError> {
    let error = || UnitError {
        input: input.into(),
        what: "a bit rate",
        example: "10M or 1.5G",
    };
    let (number, unit) = split(input).ok_or_else(error)?;
    let unit = unit
        .strip_suffix("bit/s")
        .or_else(|| unit.strip_suffix("bps"))
        .unwrap_or(unit);
    let scale = magnitude(unit)
        .and_then(|n| 1000u128.checked_pow(n))
        .ok_or_else(error)?;
    number.times(scale).ok_or_else(error)
}

/// Reads a count, such as operations per second; K, M, G and T are powers of 1000.
pub fn parse_count(input: &str) -> Result<u64, UnitError> {
    let error = || UnitError {
        input: input.into(),
        what: "a count",
        example: "500 or 20K",
    };
    let (number, unit) = split(input).ok_or_else(error)?;
    let scale = magnitude(unit)
        .and_then(|n| 1000u128.checked_pow(n))
        .ok_or_else(error)?;
    number.times(scale).ok_or_else(error)
}

/// Reads a duration; without a unit it is seconds.
pub fn parse_duration(input: &str) -> Result<Duration, UnitError> {
    let error = || UnitError {
        input: input.into(),
        what: "a duration",
        example: "10s or 100us",
    };
    let (number, unit) = split(input).ok_or_else(error)?;
    let nanos = match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "" | "s" => 1_000_000_000,
        "m" | "min" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return Err(error()),
    };
    number
        .times(nanos)
        .map(Duration::from_nanos)
        .ok_or_else(error)
}

/// A decimal number as its digits and how many of them stand behind the point.
struct Decimal {
    digits: u128,
    fraction: u32,
}

impl Decimal {
    /// The product, rounded down; `None` when it does not fit.
    fn times(&self, scale: u128) -> Option<u64> {
        let product = self.digits.checked_mul(scale)?;
        u64::try_from(product / 10u128.checked_pow(self.fraction)?).ok()
    }
}

/// Splits `1.5G` into the number and its unit.
fn split(input: &str) -> Option<(Decimal, &str)> {
    let input = input.trim();
    let end = input
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(input.len());
    let (number, unit) = input.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.contains('.') || fraction.len() > 12 {
        return None;
    }
    let digits = format!("{whole}{fraction}").parse().ok()?;
    Some((
        Decimal {
            digits,
            fraction: fraction.len() as u32,
        },
        unit.trim_start(),
    ))
}

fn magnitude(unit: &str) -> Option<u32> {
    match unit {
        "" => Some(0),
        "k" | "K" => Some(1),
        "m" | "M" => Some(2),
        "g" | "G" => Some(3),
        "t" | "T" => Some(4),
        _ => None,
    }
}

/// Three significant digits, as iperf3 prints them: `1.23`, `12.3`, `123`.
fn three_digits(value: f64) -> String {
    if value < 9.995 {
        format!("{value:.2}")
    } else if value < 99.95 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

/// The value below `base` and the prefix that makes it so.
fn scaled<'a>(value: f64, base: f64, prefixes: &[&'a str]) -> (f64, &'a str) {
    let mut value = value;
    for prefix in &prefixes[..prefixes.len() - 1] {
        // 999.5 would print as 1000: the next prefix says it better.
        if value < base - 0.5 {
            return (value, prefix);
        }
        value /= base;
    }
    (value, prefixes[prefixes.len() - 1])
}

/// A bit rate, as in `12.3 Gbits/sec`.
pub fn bits_per_second(rate: f64) -> String {
    let (value, prefix) = scaled(rate, 1000.0, &["", "K", "M", "G", "T"]);
    format!("{} {prefix}bits/sec", three_digits(value))
}

/// An amount of data, as in `1.10 GiB`.
pub fn bytes(count: u64) -> String {
    let (value, unit) = scaled(count as f64, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB"]);
    if unit == "B" {
        format!("{count} B")
    } else {
        format!("{} {unit}", three_digits(value))
    }
}

/// A count or a rate of things, as in `345`, `12.3 k`; whole numbers below 1000 stay whole.
pub fn count(value: f64) -> String {
    let (scaled, prefix) = scaled(value, 1000.0, &["", "k", "M", "G", "T"]);
    if prefix.is_empty() {
        return if value.fract() == 0.0 {
            format!("{value:.0}")
        } else {
            three_digits(value)
        };
    }
    format!("{} {prefix}", three_digits(scaled))
}

/// A duration in nanoseconds, as in `812 ns`, `12.3 µs`, `1.50 s`.
pub fn nanoseconds(nanos: u64) -> String {
    let (value, unit) = scaled(nanos as f64, 1000.0, &["ns", "µs", "ms", "s"]);
    if unit == "ns" {
        format!("{nanos} ns")
    } else {
        format!("{} {unit}", three_digits(value))
    }
}

/// A percentage, as in `97.5 %`.
pub fn percent(value: f64) -> String {
    format!("{value:.1} %")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_count_by_1024() {
        for (input, expected) in [
            ("0", 0),
            ("1200", 1200),
            ("64K", 65_536),
            ("64k", 65_536),
            ("64KiB", 65_536),
            ("64 KB", 65_536),
            ("100B", 100),
            ("1.5G", 1_610_612_736),
            ("16777215T", 16_777_215 << 40),
        ] {
            assert_eq!(parse_size(input), Ok(expected), "{input}");
        }
    }

    #[test]
    fn rates_and_counts_count_by_1000() {
        assert_eq!(parse_rate("10M"), Ok(10_000_000));
        assert_eq!(parse_rate("1.5G"), Ok(1_500_000_000));
        assert_eq!(parse_rate("2.5Gbit/s"), Ok(2_500_000_000));
        assert_eq!(parse_rate("800 kbps"), Ok(800_000));
        assert_eq!(parse_count("20k"), Ok(20_000));
        assert_eq!(parse_count("0.0015k"), Ok(1), "rounded down");
    }

    #[test]
    fn durations_have_units_and_default_to_seconds() {
        assert_eq!(parse_duration("10"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_duration("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("100us"), Ok(Duration::from_micros(100)));
        assert_eq!(parse_duration("1.5µs"), Ok(Duration::from_nanos(1500)));
        assert_eq!(parse_duration("2min"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_duration("1h"), Ok(Duration::from_secs(3600)));
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for input in [
            "",
            "K",
            "-1",
            "1.2.3",
            "12Q",
            "1KK",
            "64Ki B",
            "1e9",
            ".5",
            "99999999T",
        ] {
            assert!(parse_size(input).is_err(), "{input}");
            assert!(parse_rate(input).is_err(), "{input}");
            assert!(parse_duration(input).is_err(), "{input}");
        }
        let digits = "9".repeat(40);
        assert!(parse_count(&digits).is_err());
        assert_eq!(
            parse_size("12Q").unwrap_err().to_string(),
            "`12Q` is not a size; write a number and a unit, as in 64K or 1.5G"
        );
    }

    #[test]
    fn rates_print_three_digits() {
        for (value, expected) in [
            (0.0, "0.00 bits/sec"),
            (999.0, "999 bits/sec"),
            (999.6, "1.00 Kbits/sec"),
            (12_345_678_901.0, "12.3 Gbits/sec"),
            (9_994_000_000.0, "9.99 Gbits/sec"),
            (1.5e15, "1500 Tbits/sec"),
        ] {
            assert_eq!(bits_per_second(value), expected);
        }
    }

    #[test]
    fn amounts_print_with_their_unit() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1024), "1.00 KiB");
        assert_eq!(bytes(1 << 40), "1.00 TiB");
        assert_eq!(count(345.0), "345");
        assert_eq!(count(0.5), "0.50");
        assert_eq!(count(12_345.0), "12.3 k");
        assert_eq!(nanoseconds(812), "812 ns");
        assert_eq!(nanoseconds(12_345), "12.3 µs");
        assert_eq!(nanoseconds(1_500_000_000), "1.50 s");
        assert_eq!(nanoseconds(60_000_000_000), "60.0 s");
        assert_eq!(percent(97.53), "97.5 %");
    }
}
