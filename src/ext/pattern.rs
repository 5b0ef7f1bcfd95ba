//! Cache pattern: a topic, its cached twin, and the "all" topics above them.
