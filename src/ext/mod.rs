//! What else Stasis offers, over the public interface of the bus alone: each module its own small world.

pub mod cache;
pub mod claim;
pub mod config;
pub mod distinct;
pub mod feedback;
pub mod follow;
pub mod format;
mod health;
pub mod key_index;
pub mod keyed;
pub mod pattern;
pub mod router;
pub mod state;
pub mod taskprocessor;
pub mod testing;
pub mod topic_pool;
