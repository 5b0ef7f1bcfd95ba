//! Comparison with peers.
