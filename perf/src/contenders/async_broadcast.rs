//! The crate async-broadcast, used from threads by its blocking calls.

use std::ops::Range;
use std::thread;

use ::async_broadcast::{Sender, broadcast};

use super::channel::join;
use crate::contender::{Contender, Layout, Publish, Running, Shape};
use crate::message::{Maker, Message};
use crate::subscriber::{Group, Subscriber};

/// The contender.
pub(super) struct AsyncBroadcast;

struct Publisher {
    sender: Sender<Message>,
    maker: Maker,
}

impl Publish for Publisher {
    fn publish(&mut self, numbers: Range<u64>) {
        for n in numbers {
            self.sender.broadcast_blocking(self.maker.message(n)).expect("consumers outlive publishers");
        }
    }
}

impl Contender for AsyncBroadcast {
    fn name(&self) -> String {
        "async-broadcast".into()
    }

    fn fits(&self, shape: &Shape) -> bool {
        shape.suits_rings() && !shape.spins()
    }

    fn start(&self, shape: &Shape, subscribers: Vec<Subscriber>) -> Running {
        let (sender, receiver) = broadcast::<Message>(shape.capacity);
        let consumer = |mut group: Group| {
            let mut receiver = receiver.new_receiver();
            thread::spawn(move || {
                while let Ok(message) = receiver.recv_blocking() {
                    group.receive(&message);
                }
            })
        };
        let groups = Group::split(subscribers, Layout::Own.threads(shape.subscribers()));
        let threads = groups.into_iter().map(consumer).collect();
        let publisher = || Publisher { sender: sender.clone(), maker: Maker::new(&shape.plan) };
        let publishers = (0..shape.publishers).map(|_| Box::new(publisher()) as Box<dyn Publish>).collect();
        Running { publishers, churn: None, stop: Box::new(|| join(threads)) }
    }
}
