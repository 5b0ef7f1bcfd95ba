//! A list of channels behind a mutex, held while sending to every one: the original's pattern.
//!
//! With more than eight subscribers there is one channel per consumer thread and the thread walks its
//! subscribers: a thousand sends per message would cost the peer far more.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use super::channel::{self, Channel, send_to_all};
use crate::contender::{Contender, Layout, Publish, Running, Shape};
use crate::message::Maker;
use crate::subscriber::Subscriber;

/// The contender.
pub(super) struct Mutexed<C> {
    layout: Layout,
    channel: PhantomData<fn() -> C>,
}

impl<C> Mutexed<C> {
    pub(super) fn new(layout: Layout) -> Self {
        Self { layout, channel: PhantomData }
    }
}

struct Publisher<C: Channel> {
    list: Arc<Mutex<Vec<C::Sender>>>,
    maker: Maker,
}

impl<C: Channel> Publish for Publisher<C> {
    fn publish(&mut self, numbers: Range<u64>) {
        for n in numbers {
            let message = self.maker.message(n);
            send_to_all::<C>(&self.list.lock().expect("no publisher panicked"), message);
        }
    }
}

impl<C: Channel> Contender for Mutexed<C> {
    fn name(&self) -> String {
        format!("mutex + {}{}", C::NAME, self.layout.suffix())
    }

    fn fits(&self, shape: Shape) -> bool {
        self.layout.fits(shape)
    }

    fn start(&self, shape: Shape, subscribers: Vec<Subscriber>) -> Running {
        channel::start::<C>(self.layout, shape, subscribers, |senders| {
            let list = Arc::new(Mutex::new(senders));
            let publisher = || Publisher::<C> { list: Arc::clone(&list), maker: Maker::new() };
            (0..shape.publishers).map(|_| Box::new(publisher()) as Box<dyn Publish>).collect()
        })
    }
}
