//! How numbers on the command lines of these programs read, the same in all of them.

/// The most rounds that a command makes; as many again may be extra.
const ROUNDS: usize = 1000;
/// The shortest window: less is over before both sides have been on a core.
const SHORTEST: f64 = 0.01;
/// The longest time, an hour.
const LONGEST: f64 = 3600.0;

/// Reads a number of seconds that may be none: a warm-up, a patience.
///
/// # Errors
/// When it is no number, negative, or more than an hour.
pub fn seconds(text: &str) -> Result<f64, String> {
    read(text, 0.0)
}

/// Reads the length of a window in seconds.
///
/// # Errors
/// When it is no number, more than an hour, or so short that nothing is measured in it.
pub fn window(text: &str) -> Result<f64, String> {
    read(text, SHORTEST)
}

fn read(text: &str, least: f64) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (least..=LONGEST).contains(&seconds) => Ok(seconds),
        _ => Err(format!("a number of seconds from {least} to {LONGEST}")),
    }
}

/// Reads how many rounds shall count.
///
/// # Errors
/// When it is none, or more than anybody waits for.
pub fn rounds(text: &str) -> Result<usize, String> {
    count(text, 1)
}

/// Reads how many rounds may be made beyond those.
///
/// # Errors
/// As [`rounds`], but for none.
pub fn extra(text: &str) -> Result<usize, String> {
    count(text, 0)
}

fn count(text: &str, least: usize) -> Result<usize, String> {
    match text.parse() {
        Ok(n) if (least..=ROUNDS).contains(&n) => Ok(n),
        _ => Err(format!("a number from {least} to {ROUNDS}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_finite_and_few() {
        assert_eq!((seconds("0"), seconds("2.5")), (Ok(0.0), Ok(2.5)));
        assert_eq!((window("0.01"), window("3600")), (Ok(0.01), Ok(3600.0)));
        for bad in ["", "-1", "3601", "NaN", "inf", "-inf", "1s", "1e400"] {
            assert!(seconds(bad).is_err() && window(bad).is_err(), "{bad}");
        }
        for short in ["0", "-0", "1e-9"] {
            assert!(window(short).is_err(), "{short}");
        }
    }

    #[test]
    fn rounds_are_some_and_few() {
        assert_eq!(
            (rounds("1"), extra("0"), rounds("1000")),
            (Ok(1), Ok(0), Ok(1000))
        );
        for bad in ["", "-1", "1001", "18446744073709551615", "1.5"] {
            assert!(rounds(bad).is_err() && extra(bad).is_err(), "{bad}");
        }
        assert!(rounds("0").is_err());
    }
}
