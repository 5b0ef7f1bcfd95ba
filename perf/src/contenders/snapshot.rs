//! A list of channels behind arc-swap: publishers take no lock of the list's.
//!
//! Threads and channels as in `mutex`.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::channel::{self, Channel, send_to_all};
use crate::contender::{Contender, Layout, Publish, Running, Shape};
use crate::message::Maker;
use crate::subscriber::Subscriber;

/// The contender.
pub(super) struct Snapshot<C> {
    layout: Layout,
    channel: PhantomData<fn() -> C>,
}

impl<C> Snapshot<C> {
    pub(super) fn new(layout: Layout) -> Self {
        Self { layout, channel: PhantomData }
    }
}

struct Publisher<C: Channel> {
    list: Arc<ArcSwap<Vec<C::Sender>>>,
    maker: Maker,
}

impl<C: Channel> Publish for Publisher<C> {
    fn publish(&mut self, numbers: Range<u64>) {
        for n in numbers {
            let message = self.maker.message(n);
            send_to_all::<C>(&self.list.load(), message);
        }
    }
}

impl<C: Channel> Contender for Snapshot<C> {
    fn name(&self) -> String {
        format!("arc-swap + {}{}", C::NAME, self.layout.suffix())
    }

    fn fits(&self, shape: Shape) -> bool {
        self.layout.fits(shape)
    }

    fn start(&self, shape: Shape, subscribers: Vec<Subscriber>) -> Running {
        channel::start::<C>(self.layout, shape, subscribers, |senders| {
            let list = Arc::new(ArcSwap::from_pointee(senders));
            let publisher = || Publisher::<C> { list: Arc::clone(&list), maker: Maker::new() };
            (0..shape.publishers).map(|_| Box::new(publisher()) as Box<dyn Publish>).collect()
        })
    }
}
