//! tokio's broadcast channel, received by threads that block.
//!
//! Its publishers never wait: a receiver that falls behind by more than the capacity loses messages.
//! Deliveries are those that were made; the losses are shown beside them.

use std::ops::Range;
use std::thread;

use ::tokio::sync::broadcast::{self, Sender, error::RecvError};

use super::channel::join;
use crate::contender::{Contender, Layout, Mode, Publish, Running, Shape};
use crate::message::{Maker, Message};
use crate::subscriber::{Group, Subscriber};

/// The contender.
pub(super) struct Broadcast;

struct Publisher {
    sender: Sender<Message>,
    maker: Maker,
}

impl Publish for Publisher {
    fn publish(&mut self, numbers: Range<u64>) {
        for n in numbers {
            // An error says that nobody listens; the message goes no further.
            drop(self.sender.send(self.maker.message(n)));
        }
    }
}

impl Contender for Broadcast {
    fn name(&self) -> String {
        "tokio broadcast".into()
    }

    fn fits(&self, shape: &Shape) -> bool {
        // Losing most of it is no way to send a latency probe or a burst.
        matches!(shape.mode, Mode::Throughput) && shape.topics() == 1
    }

    fn is_lossy(&self) -> bool {
        true
    }

    fn start(&self, shape: &Shape, subscribers: Vec<Subscriber>) -> Running {
        let (sender, _) = broadcast::channel::<Message>(shape.capacity);
        let consumer = |mut group: Group| {
            let mut receiver = sender.subscribe();
            thread::spawn(move || {
                loop {
                    match receiver.blocking_recv() {
                        Ok(message) => group.receive(&message),
                        Err(RecvError::Lagged(lost)) => group.miss(lost),
                        Err(RecvError::Closed) => break,
                    }
                }
            })
        };
        let threads =
            Group::split(subscribers, Layout::Own.threads(shape.subscribers())).into_iter().map(consumer).collect();
        let publisher = || Publisher { sender: sender.clone(), maker: Maker::new(&shape.plan) };
        let publishers = (0..shape.publishers).map(|_| Box::new(publisher()) as Box<dyn Publish>).collect();
        Running { publishers, churn: None, stop: Box::new(|| join(threads)) }
    }
}
