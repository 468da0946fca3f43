//! A [`Duration`] in a file: a number of seconds, for `#[serde(with = "ums_model::seconds")]`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer};

/// Writes it as a number of seconds, with a fraction where there is one.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

/// The longest time that may be given: longer ones reach beyond what clocks can count.
const MOST: Duration = Duration::from_secs(365 * 24 * 3600);

/// Reads a number of seconds: more than 0, which would be no time at all, and at most a year.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let seconds = f64::deserialize(deserializer)?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if (Duration::from_nanos(1)..=MOST).contains(&duration) => Ok(duration),
        _ => {
            let message =
                format!("{seconds} is no number of seconds above 0 and up to {} (a year)", MOST.as_secs());
            Err(serde::de::Error::custom(message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_times_that_can_be_waited_for_are_read() {
        let read = |text: &str| deserialize(&mut serde_json::Deserializer::from_str(text));
        assert_eq!(read("2.5").unwrap(), Duration::from_millis(2500));
        assert_eq!(read("31536000").unwrap(), MOST);
        for wrong in ["0", "-1", "1e-10", "31536001", "1e300"] {
            let error = read(wrong).unwrap_err().to_string();
            assert!(error.contains("up to 31536000 (a year)"), "{wrong}: {error}");
        }
        assert!(read("null").is_err());
    }
}
