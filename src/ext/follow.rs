//! Snapshot-plus-updates: the present state first, then every later update.
