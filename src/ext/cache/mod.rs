//! Caches: the latest snapshot of everything, by id and node.
