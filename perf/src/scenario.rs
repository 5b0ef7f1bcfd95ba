//! The scenarios, and how many messages each takes.

use crate::contender::Shape;

/// Publishers, subscribers, messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    /// Messages of a measured phase, of all publishers together: the same for every contender.
    pub(crate) messages: u64,
}

const fn scenario(name: &'static str, publishers: usize, subscribers: usize, messages: u64) -> Scenario {
    Scenario { name, shape: Shape { publishers, subscribers }, messages }
}

/// All of them, in the order of the table.
pub(crate) const ALL: [Scenario; 5] = [
    scenario("1->0", 1, 0, 4_000_000),
    scenario("1->1", 1, 1, 1_000_000),
    scenario("1->8", 1, 8, 400_000),
    scenario("4->8", 4, 8, 400_000),
    scenario("1->1000", 1, 1000, 30_000),
];

impl Scenario {
    /// With `scale` times the messages, at least one for each publisher.
    pub(crate) fn scaled(self, scale: f64) -> Self {
        Self { messages: ((self.messages as f64 * scale) as u64).max(self.shape.publishers as u64), ..self }
    }
}
