//! A sample request of an interceptor for each trigger, in the shape that Scalekit documents
//! (<https://docs.scalekit.com/reference/interceptors/triggers>). The people and companies in them do not exist.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::Unreadable;

/// Every sample, by its trigger.
const SAMPLES: &str = include_str!("interceptor_samples.json");

/// The samples, by trigger, each at this time.
///
/// # Errors
/// [`Unreadable`] never happens in a build whose tests passed.
pub fn interceptor_samples(at: Timestamp) -> Result<Map<String, Value>, Unreadable> {
    let mut samples: Map<String, Value> = serde_json::from_str(SAMPLES)?;
    for sample in samples.values_mut() {
        sample["interceptor_context"]["triggered_at"] = at.to_string().into();
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sample_is_of_its_trigger_and_time() {
        let at = Timestamp::from_second(1_767_225_600).unwrap();
        for (trigger, sample) in interceptor_samples(at).unwrap() {
            assert_eq!(sample["trigger_point"], trigger);
            assert_eq!(sample["interceptor_context"]["triggered_at"], "2026-01-01T00:00:00Z");
        }
    }
}
