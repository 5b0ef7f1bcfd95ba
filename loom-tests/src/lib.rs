//! Loom models of the protocols of stasis-bus: the engine's own code, run under every interleaving
//! and every outcome the memory model allows, within a bound.
//!
//! ```text
//! RUSTFLAGS="--cfg loom --cfg crossbeam_loom" cargo test --profile loom -p loom-tests
//! ```
//!
//! Both cfgs are needed: with `loom` alone crossbeam-epoch would run unmodelled and the models that
//! rest on it would pass whatever happens (`a_pin_holds_off_a_grace_period` fails then). Without the
//! cfgs this crate compiles to nothing and its tests are none. The whole set takes two to three minutes on
//! two busy cores; `-- --nocapture` shows the number of executions of each model.
//!
//! One file per protocol in `tests/`. Each model names the promise it checks and the mutation of the
//! engine that makes it fail; they are data (`mutants.txt`, `MUTATIONS.md`) and tried by `mutants.sh`. What loom cannot see:
//! - arc-swap: models run over its mutex twin (`snapshot.rs`);
//! - time: a timed sleep is a sleep until woken, so a wake-up that only a timeout makes good is a
//!   deadlock here, and found;
//! - what `std`'s `Arc` synchronises: where a model depends on who drops last, it joins first;
//! - `SeqCst` accesses count as `AcqRel`; the engine has none, only fences;
//! - use of freed memory: the allocator of this crate spoils what is freed, so that it shows.

#[cfg(loom)]
mod runner;
#[cfg(loom)]
mod watch;
#[cfg(loom)]
pub mod whole;

#[cfg(loom)]
pub use runner::{Drops, Model, Probe, Watched, spawn};
#[cfg(loom)]
pub use watch::live_blocks;
