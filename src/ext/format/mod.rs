//! Formatters: JSON, AMI and events from payloads; multi-object user events.
