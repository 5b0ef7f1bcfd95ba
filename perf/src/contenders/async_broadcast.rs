//! The crate async-broadcast, used from threads by its blocking calls.

use std::ops::Range;
use std::thread;

use ::async_broadcast::{Sender, broadcast};

use super::channel::join;
use crate::contender::{Contender, Layout, Publish, Running, Shape};
use crate::message::{Maker, Message};
use crate::subscriber::{Group, Subscriber};

/// The contender: a receiver a thread, or one for each subscriber.
pub(super) struct AsyncBroadcast(pub(super) Layout);

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
        format!("async-broadcast{}", self.0.suffix())
    }

    fn fits(&self, shape: &Shape) -> bool {
        shape.suits_rings() && !shape.spins() && self.0.fits(shape)
    }

    fn start(&self, shape: &Shape, subscribers: Vec<Subscriber>) -> Running {
        let (sender, receiver) = broadcast::<Message>(self.0.capacity(shape));
        let consumer = |groups: Vec<Group>| {
            let mut receivers: Vec<_> = groups.into_iter().map(|group| (receiver.new_receiver(), group)).collect();
            thread::spawn(move || {
                // Every receiver gets every message.
                while !receivers.is_empty() {
                    receivers.retain_mut(|(receiver, group)| {
                        receiver.recv_blocking().map(|message| group.receive(&message)).is_ok()
                    });
                }
            })
        };
        let threads = self.0.share_out(subscribers).into_iter().map(consumer).collect();
        let publisher = || Publisher { sender: sender.clone(), maker: Maker::new(&shape.plan) };
        let publishers = (0..shape.publishers).map(|_| Box::new(publisher()) as Box<dyn Publish>).collect();
        Running { publishers, churn: None, stop: Box::new(|| join(threads)) }
    }
}
