//! Loom models of the protocols of stasis-bus.
