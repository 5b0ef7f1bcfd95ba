//! The crate `disruptor` 4: one ring whose slots hold counted messages, or the bytes of a message ("in place");
//! every consumer reads it.
//!
//! A consumer gets a reference (it may keep the message by counting it) and the message is freed by
//! the publisher that uses its slot again, up to 4096 messages later. In place there is no message: nothing
//! is made, counted or freed, and a consumer that wants to keep something copies it. It cannot do without consumers.
//!
//! | waits | consumers | publishers while the ring is full |
//! |---|---|---|
//! | spin | `BusySpin`: "lowest latency possible" in its docs | its own `publish`, which spins |
//! | yield | its trait, with `yield_now`: for machines with fewer cores than threads | `try_publish`, `Backoff::snooze` |
//! | sleep | `Sleep`, which its docs advise "if you also want to use the Disruptor for non latency critical parts" | as yield |

use std::marker::PhantomData;
use std::ops::Range;
use std::thread;
use std::time::Duration;

use ::disruptor::wait_strategies::WaitStrategy;
use ::disruptor::{BusySpin, MultiProducer, Producer, Sequence, Sleep, build_multi_producer, build_single_producer};
use crossbeam_utils::Backoff;

use crate::contender::{Contender, Layout, Publish, Running, Shape};
use crate::message::{Envelope, Maker, Message};
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
    /// No message objects.
    pub(super) in_place: bool,
}

/// What is in a slot.
trait Slot: Send + Sync + 'static {
    fn empty() -> Self;
    /// What is to be put into a slot: made before one is free.
    type Filling;
    fn make(maker: &Maker, n: u64) -> Self::Filling;
    fn fill(&mut self, filling: &mut Self::Filling, maker: &Maker);
    fn message(&self) -> Option<&Envelope>;
}

impl Slot for Option<Message> {
    fn empty() -> Self {
        None
    }

    type Filling = Option<Message>;

    #[inline]
    fn make(maker: &Maker, n: u64) -> Self::Filling {
        Some(maker.message(n))
    }

    #[inline]
    fn fill(&mut self, filling: &mut Self::Filling, _: &Maker) {
        *self = filling.take();
    }

    #[inline]
    fn message(&self) -> Option<&Envelope> {
        self.as_deref()
    }
}

/// The bytes themselves.
struct InPlace(Option<Envelope>);

impl Slot for InPlace {
    fn empty() -> Self {
        Self(None)
    }

    type Filling = u64;

    #[inline]
    fn make(_: &Maker, n: u64) -> u64 {
        n
    }

    #[inline]
    fn fill(&mut self, n: &mut u64, maker: &Maker) {
        self.0 = Some(maker.envelope(*n));
    }

    #[inline]
    fn message(&self) -> Option<&Envelope> {
        self.0.as_ref()
    }
}

struct Publisher<P, S> {
    producer: P,
    spins: bool,
    maker: Maker,
    slot: PhantomData<fn() -> S>,
}

impl<S: Slot, P: Producer<S> + Send> Publish for Publisher<P, S> {
    fn publish(&mut self, numbers: Range<u64>) {
        for n in numbers {
            let mut message = S::make(&self.maker, n);
            if self.spins {
                self.producer.publish(|slot| slot.fill(&mut message, &self.maker));
                continue;
            }
            let backoff = Backoff::new();
            while self.producer.try_publish(|slot| slot.fill(&mut message, &self.maker)).is_err() {
                backoff.snooze();
            }
        }
    }
}

fn handler<S: Slot>(mut group: Group) -> impl FnMut(&S, Sequence, bool) + Send + 'static {
    move |slot, _, _| {
        if let Some(message) = slot.message() {
            group.receive(message);
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
    fn publisher<S: Slot, P: Producer<S> + Send + 'static>(&self, producer: P, shape: &Shape) -> Box<dyn Publish> {
        let maker = Maker::new(&shape.plan);
        Box::new(Publisher::<P, S> { producer, spins: self.wait == Wait::Spin, maker, slot: PhantomData })
    }

    fn sharing<S: Slot, C>(&self, producer: MultiProducer<S, C>, shape: &Shape) -> Vec<Box<dyn Publish>>
    where
        MultiProducer<S, C>: Producer<S> + Send + 'static,
    {
        let clones: Vec<_> = (1..shape.publishers).map(|_| self.publisher::<S, _>(producer.clone(), shape)).collect();
        std::iter::once(self.publisher::<S, _>(producer, shape)).chain(clones).collect()
    }

    fn build<S: Slot, W: WaitStrategy + 'static>(
        &self,
        shape: &Shape,
        groups: Vec<Group>,
        wait: W,
    ) -> Vec<Box<dyn Publish>> {
        match (self.producers, only(groups)) {
            (Producers::Single, Ok(group)) => {
                let builder = build_single_producer(shape.capacity, S::empty, wait);
                vec![self.publisher::<S, _>(builder.handle_events_with(handler(group)).build(), shape)]
            }
            (Producers::Single, Err(groups)) => {
                let mut builder = build_single_producer(shape.capacity, S::empty, wait).with_multi_consumer();
                for group in groups {
                    builder = builder.handle_events_with(handler(group));
                }
                vec![self.publisher::<S, _>(builder.build(), shape)]
            }
            (Producers::Multi, Ok(group)) => {
                let builder = build_multi_producer(shape.capacity, S::empty, wait);
                self.sharing(builder.handle_events_with(handler(group)).build(), shape)
            }
            (Producers::Multi, Err(groups)) => {
                let mut builder = build_multi_producer(shape.capacity, S::empty, wait).with_multi_consumer();
                for group in groups {
                    builder = builder.handle_events_with(handler(group));
                }
                self.sharing(builder.build(), shape)
            }
        }
    }

    fn with_slots<S: Slot>(&self, shape: &Shape, groups: Vec<Group>) -> Vec<Box<dyn Publish>> {
        match self.wait {
            Wait::Spin => self.build::<S, _>(shape, groups, BusySpin),
            Wait::Yield => self.build::<S, _>(shape, groups, YieldNow),
            Wait::Sleep => self.build::<S, _>(shape, groups, Sleep::new(NAP)),
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
        let slots = if self.in_place { " in place" } else { "" };
        format!("disruptor {producers} {wait}{slots}{}", self.layout.suffix())
    }

    fn fits(&self, shape: &Shape) -> bool {
        let publishers = self.producers == Producers::Multi || shape.publishers == 1;
        // Nine threads that spin on two cores take minutes; what they do at 8 they do at 64.
        let waits = if shape.spins() { self.wait == Wait::Spin } else { self.wait != Wait::Spin || shape.is_plain() };
        publishers && waits && shape.suits_rings() && self.layout.fits(shape)
    }

    fn start(&self, shape: &Shape, subscribers: Vec<Subscriber>) -> Running {
        let groups = Group::split(subscribers, self.layout.threads(shape.subscribers()));
        let publishers = if self.in_place {
            self.with_slots::<InPlace>(shape, groups)
        } else {
            self.with_slots::<Option<Message>>(shape, groups)
        };
        // The last producer, when dropped, waits for the consumers.
        Running { publishers, churn: None, stop: Box::new(|| ()) }
    }
}
