//! The crate `bus`: one ring, every reader takes its copy from it.
//!
//! It has one writer. A single publisher owns it; several share it behind a mutex, the only way it
//! allows.

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::thread;

use super::channel::join;
use crate::contender::{Contender, Layout, Publish, Running, Shape};
use crate::message::{Maker, Message};
use crate::subscriber::{Group, Subscriber};

/// The contender: a reader a thread, or one for each subscriber.
pub(super) struct Bus(pub(super) Layout);

struct Owner {
    bus: ::bus::Bus<Message>,
    maker: Maker,
}

impl Publish for Owner {
    fn publish(&mut self, numbers: Range<u64>) {
        for n in numbers {
            self.bus.broadcast(self.maker.message(n));
        }
    }
}

struct Sharer {
    bus: Arc<Mutex<::bus::Bus<Message>>>,
    maker: Maker,
}

impl Publish for Sharer {
    fn publish(&mut self, numbers: Range<u64>) {
        for n in numbers {
            let message = self.maker.message(n);
            self.bus.lock().expect("no publisher panicked").broadcast(message);
        }
    }
}

impl Contender for Bus {
    fn name(&self) -> String {
        format!("bus{}", self.0.suffix())
    }

    fn fits(&self, shape: &Shape) -> bool {
        !shape.spins() && (shape.suits_rings() || shape.is_plain()) && self.0.fits(shape)
    }

    fn start(&self, shape: &Shape, subscribers: Vec<Subscriber>) -> Running {
        let mut bus = ::bus::Bus::<Message>::new(self.0.capacity(shape));
        let consumer = |groups: Vec<Group>| {
            let mut readers: Vec<_> = groups.into_iter().map(|group| (bus.add_rx(), group)).collect();
            thread::spawn(move || {
                // Every reader gets every message.
                while !readers.is_empty() {
                    readers.retain_mut(|(reader, group)| reader.recv().map(|message| group.receive(&message)).is_ok());
                }
            })
        };
        let threads = self.0.share_out(subscribers).into_iter().map(consumer).collect();
        let publishers: Vec<Box<dyn Publish>> = if shape.publishers == 1 {
            vec![Box::new(Owner { bus, maker: Maker::new(&shape.plan) })]
        } else {
            let bus = Arc::new(Mutex::new(bus));
            let publisher = || Sharer { bus: Arc::clone(&bus), maker: Maker::new(&shape.plan) };
            (0..shape.publishers).map(|_| Box::new(publisher()) as Box<dyn Publish>).collect()
        };
        Running { publishers, churn: None, stop: Box::new(|| join(threads)) }
    }
}
