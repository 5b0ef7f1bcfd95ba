//! A health report as JSON, for programs.
//!
//! ```text
//!   Bus::health() ─► HealthReport ─┬─ Display: a table for people
//!                                  └─ to_json: an object for programs
//! ```
//!
//! Guarantees: field names are those of the structs, durations are microseconds with `_us` behind the name, what
//! is not known is null (`tests/health_json.rs`). Cost: of a report, not of the bus.

use std::time::Duration;

use serde_json::{Value, json};

use crate::bus::{Criticality, Executing, HealthReport, QueueHealth};

fn micros(time: Duration) -> u64 {
    time.as_micros().try_into().unwrap_or(u64::MAX)
}

fn executing(running: &Executing) -> Value {
    json!({
        "id": running.id,
        "subscription": running.subscription,
        "topic": running.topic,
        "location": running.location,
        "message_type": running.message_type,
        "running_for_us": micros(running.running_for),
    })
}

fn queue(queue: &QueueHealth) -> Value {
    json!({
        "name": queue.name,
        "kind": queue.kind.to_string(),
        "subsystem": queue.subsystem,
        "criticality": match queue.criticality {
            Criticality::Low => "low",
            Criticality::Normal => "normal",
            Criticality::High => "high",
        },
        "depth": queue.depth,
        "high_water": queue.high_water,
        "oldest_us": queue.oldest.map(micros),
        "is_congested": queue.is_congested,
        "running": queue.running.as_ref().map(executing),
        "takeovers": queue.takeovers,
        "panics": queue.panics,
    })
}

impl HealthReport {
    /// The report as a JSON object, on one line. Field names are those of the structs; durations are whole
    /// microseconds with `_us` behind the name; what is not known is null.
    ///
    /// # Examples
    /// ```
    /// use stasis_bus::Bus;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let bus = Bus::builder().name("pbx").lanes(1).build()?;
    /// let json: serde_json::Value = serde_json::from_str(&bus.health().to_json())?;
    /// assert_eq!(json["queues"][0]["name"], "pbx/0");
    /// assert_eq!(json["congested"], 0);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn to_json(&self) -> String {
        json!({
            "queues": self.queues.iter().map(queue).collect::<Vec<_>>(),
            "congested": self.congested,
            "takeovers": self.takeovers,
            "takeovers_refused": self.takeovers_refused,
            "spare_threads": self.spare_threads,
            "untold": self.untold,
        })
        .to_string()
    }
}
