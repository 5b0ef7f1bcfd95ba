//! Configuration: `stasis.conf` as it is in the field, and the same in TOML.
