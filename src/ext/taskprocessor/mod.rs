//! Taskprocessors as an interface of their own: named serial queues of tasks, serializers, pools.
//!
//! ```text
//!   Taskprocessors (registry) ─ get / find / list ─► Taskprocessor ─ Listener ─► own thread (default)
//!                                                                             ├► a pool's threads
//!                                                                             └► yours
//!   Serializers (bus) ─► Serializer ─► lanes            TaskPool ─► threads that may block
//!   ShutdownGroup: waits for serializers to end
//! ```
//!
//! Which: tasks of microseconds, many queues: [`Serializer`] (lanes). Tasks that block: [`TaskPool`], in order:
//! [`TaskPool::serializer`]. One queue with its own thread: [`Taskprocessors::get`].
//!
//! Guarantees (tests in `tests/taskprocessors.rs`, `task_pool.rs`, `shutdown_group.rs`; models in
//! `loom-tests/tests/task_pool.rs`):
//! - First in, first out, one task at a time (`tasks_run_in_order_one_at_a_time`).
//! - What was accepted is run; what is refused comes back
//!   (`g11_a_push_after_the_end_hands_the_task_back`).
//! - No lock is held while tasks, listeners, callbacks or destructors run
//!   (`g07_callbacks_may_use_the_taskprocessor`).
//! - A wait that could never end is an error (`g07_waiting_for_oneself_is_an_error`).
//! - Dropping the last handle ends it, from anywhere (`g10_the_last_handle_may_go_in_its_own_task`).
//! - A panic is the task's alone (`g12_a_panicking_task_is_counted_and_hurts_nobody`).
//! - A task waits behind a busy thread of a pool only if there is no idle one and none may be started
//!   (`a_task_never_waits_behind_a_busy_executor`).
//!
//! Cost: queues are guarded by short locks; this is not the bus's data path.

mod crew;
mod error;
mod gauge;
mod group;
mod listener;
mod pool;
mod processor;
mod queue;
mod registry;
mod serializer;
mod task;
mod wait;

pub use error::{CreateError, EndError, LevelError, PushError, PushWaitError, Unfinished};
pub use gauge::{Alert, DEFAULT_HIGH_WATER};
pub use group::ShutdownGroup;
pub use listener::Listener;
pub use pool::{PoolListener, TaskPool, TaskPoolBuilder};
pub use processor::{Executed, Runner, Taskprocessor};
pub use registry::{Stats, Taskprocessors};
pub use serializer::{Serializer, Serializers};
pub use task::{LocalData, Task};
