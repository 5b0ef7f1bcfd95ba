//! For tests of users: message sinks, a deterministic bus.
