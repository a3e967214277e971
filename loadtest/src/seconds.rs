//! Durations on the command line.

use std::time::Duration;

/// Reads a duration in plain seconds, which `humantime` refuses.
///
/// # Errors
/// What is no number, or no duration.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|error| format!("{error}"))?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_may_have_a_fraction_but_no_sign_and_no_unit() {
        assert_eq!((seconds("2"), seconds("0.5")), (Ok(Duration::from_secs(2)), Ok(Duration::from_millis(500))));
        for wrong in ["", "-1", "2s", "NaN", "inf", "1e99"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
