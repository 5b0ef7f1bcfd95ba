//! The crate `disruptor` 4: one ring whose slots hold counted messages; every consumer reads it.
//!
//! A consumer gets a reference (it may keep the message by counting it) and the message is freed by
//! the publisher that uses its slot again, up to 4096 messages later. It cannot do without consumers.
//!
//! | waits | consumers | publishers while the ring is full |
//! |---|---|---|
//! | spin | `BusySpin`: "lowest latency possible" in its docs | its own `publish`, which spins |
//! | yield | its trait, with `yield_now`: for machines with fewer cores than threads | `try_publish`, `Backoff::snooze` |
//! | sleep | `Sleep`, which its docs advise "if you also want to use the Disruptor for non latency critical parts" | as yield |

use std::ops::Range;
use std::thread;
use std::time::Duration;

use ::disruptor::wait_strategies::WaitStrategy;
use ::disruptor::{BusySpin, MultiProducer, Producer, Sequence, Sleep, build_multi_producer, build_single_producer};
use crossbeam_utils::Backoff;

use crate::contender::{CAPACITY, Contender, Layout, Publish, Running, Shape};
use crate::message::{Maker, Message};
use crate::subscriber::{Group, Subscriber};

/// Which of its two producers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Producers {
    Single,
    Multi,
}

/// How both ends wait.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    Spin,
    Yield,
    Sleep,
}

/// How long `Sleep` sleeps (the system makes about twice of it): less than it takes to fill the ring.
const NAP: Duration = Duration::from_micros(50);

/// Gives the core away each time there is nothing to read.
#[derive(Clone, Copy)]
struct YieldNow;

impl WaitStrategy for YieldNow {
    fn wait_for(&self, _: Sequence) {
        thread::yield_now();
    }
}

/// The contender.
pub(super) struct Disruptor {
    pub(super) producers: Producers,
    pub(super) wait: Wait,
    pub(super) layout: Layout,
}

type Slot = Option<Message>;

struct Publisher<P> {
    producer: P,
    spins: bool,
    maker: Maker,
}

impl<P: Producer<Slot> + Send> Publish for Publisher<P> {
    fn publish(&mut self, numbers: Range<u64>) {
        for n in numbers {
            let mut message = Some(self.maker.message(n));
            if self.spins {
                self.producer.publish(|slot| *slot = message.take());
                continue;
            }
            let backoff = Backoff::new();
            while self.producer.try_publish(|slot| *slot = message.take()).is_err() {
                backoff.snooze();
            }
        }
    }
}

fn handler(mut group: Group) -> impl FnMut(&Slot, Sequence, bool) + Send + 'static {
    move |slot, _, _| {
        if let Some(message) = slot {
            group.receive(&message.payload);
        }
    }
}

/// The one group, or all of them.
fn only(mut groups: Vec<Group>) -> Result<Group, Vec<Group>> {
    match groups.pop() {
        Some(group) if groups.is_empty() => Ok(group),
        Some(group) => {
            groups.push(group);
            Err(groups)
        }
        None => Err(groups),
    }
}

impl Disruptor {
    fn publisher<P: Producer<Slot> + Send + 'static>(&self, producer: P) -> Box<dyn Publish> {
        Box::new(Publisher { producer, spins: self.wait == Wait::Spin, maker: Maker::new() })
    }

    fn sharing<C>(&self, producer: MultiProducer<Slot, C>, publishers: usize) -> Vec<Box<dyn Publish>>
    where
        MultiProducer<Slot, C>: Producer<Slot> + Send + 'static,
    {
        let clones: Vec<_> = (1..publishers).map(|_| self.publisher(producer.clone())).collect();
        std::iter::once(self.publisher(producer)).chain(clones).collect()
    }

    fn build<W: WaitStrategy + 'static>(&self, shape: Shape, groups: Vec<Group>, wait: W) -> Vec<Box<dyn Publish>> {
        match (self.producers, only(groups)) {
            (Producers::Single, Ok(group)) => {
                let builder = build_single_producer(CAPACITY, || None, wait);
                vec![self.publisher(builder.handle_events_with(handler(group)).build())]
            }
            (Producers::Single, Err(groups)) => {
                let mut builder = build_single_producer(CAPACITY, || None, wait).with_multi_consumer();
                for group in groups {
                    builder = builder.handle_events_with(handler(group));
                }

                vec![self.publisher(builder.build())]
            }
            (Producers::Multi, Ok(group)) => {
                let builder = build_multi_producer(CAPACITY, || None, wait);
                self.sharing(builder.handle_events_with(handler(group)).build(), shape.publishers)
            }
            (Producers::Multi, Err(groups)) => {
                let mut builder = build_multi_producer(CAPACITY, || None, wait).with_multi_consumer();
                for group in groups {
                    builder = builder.handle_events_with(handler(group));
                }
                self.sharing(builder.build(), shape.publishers)
            }
        }
    }
}

impl Contender for Disruptor {
    fn name(&self) -> String {
        let producers = match self.producers {
            Producers::Single => "single",
            Producers::Multi => "multi",
        };
        let wait = match self.wait {
            Wait::Spin => "spin",
            Wait::Yield => "yield",
            Wait::Sleep => "sleep",
        };
        format!("disruptor {producers} {wait}{}", self.layout.suffix())
    }

    fn fits(&self, shape: Shape) -> bool {
        let publishers = self.producers == Producers::Multi || shape.publishers == 1;
        publishers && shape.subscribers > 0 && self.layout.fits(shape)
    }

    fn start(&self, shape: Shape, subscribers: Vec<Subscriber>) -> Running {
        let groups = Group::split(subscribers, self.layout.threads(shape.subscribers));
        let publishers = match self.wait {
            Wait::Spin => self.build(shape, groups, BusySpin),
            Wait::Yield => self.build(shape, groups, YieldNow),
            Wait::Sleep => self.build(shape, groups, Sleep::new(NAP)),
        };
        // The last producer, when dropped, waits for the consumers.
        Running { publishers, stop: Box::new(|| ()) }
    }
}
