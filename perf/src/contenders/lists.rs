//! Lists of channels, a list a topic: behind a mutex that is held while sending (the original's pattern), or
//! behind arc-swap. Each entry has a filter, as the original's and ours have.
//!
//! Forwards: the list is flat, with those of the topics behind, as in the original and here.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::thread;

use arc_swap::ArcSwap;

use super::channel::{self, Channel, join};
use crate::contender::{CAPACITY, Contender, Layout, Mode, Publish, Running, Shape};
use crate::message::{Maker, Message};
use crate::plan::Plan;
use crate::subscriber::Subscriber;

/// Type of the messages, and of what subscribers want that are not to get any.
const KIND: u32 = 1;
const OTHER: u32 = 2;

/// A list many read and few change.
pub(super) trait List<T>: Send + Sync + 'static {
    /// Name in the table.
    const NAME: &'static str;
    fn new(entries: Vec<T>) -> Self;
    /// Reads it as it is now.
    fn read(&self, read: impl FnOnce(&[T]));
    /// Changes it.
    fn change(&self, change: impl Fn(&mut Vec<T>));
}

/// Behind a mutex.
pub(super) struct Locked<T>(Mutex<Vec<T>>);

impl<T: Send + 'static> List<T> for Locked<T> {
    const NAME: &'static str = "mutex";

    fn new(entries: Vec<T>) -> Self {
        Self(Mutex::new(entries))
    }

    #[inline]
    fn read(&self, read: impl FnOnce(&[T])) {
        read(&self.0.lock().expect("no publisher panicked"));
    }

    fn change(&self, change: impl Fn(&mut Vec<T>)) {
        change(&mut self.0.lock().expect("no publisher panicked"));
    }
}

/// Behind arc-swap.
pub(super) struct Swapped<T>(ArcSwap<Vec<T>>);

impl<T: Clone + Send + Sync + 'static> List<T> for Swapped<T> {
    const NAME: &'static str = "arc-swap";

    fn new(entries: Vec<T>) -> Self {
        Self(ArcSwap::from_pointee(entries))
    }

    #[inline]
    fn read(&self, read: impl FnOnce(&[T])) {
        read(&self.0.load());
    }

    fn change(&self, change: impl Fn(&mut Vec<T>)) {
        self.0.rcu(|list| {
            let mut list = Vec::clone(list);
            change(&mut list);
            list
        });
    }
}

/// A consumer on a list.
pub(super) struct Entry<S> {
    sender: S,
    accepts: u32,
    id: usize,
}

impl<S: Clone> Clone for Entry<S> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), ..*self }
    }
}

/// The contender.
pub(super) struct Lists<L, C> {
    layout: Layout,
    parts: PhantomData<fn() -> (L, C)>,
}

impl<L, C> Lists<L, C> {
    pub(super) fn new(layout: Layout) -> Self {
        Self { layout, parts: PhantomData }
    }
}

struct Publisher<L, C> {
    lists: Arc<Vec<L>>,
    plan: Arc<Plan>,
    maker: Maker,
    kind: u32,
    channel: PhantomData<fn() -> C>,
}

/// Sends to all that accept it; the last one gets the message itself, not a copy of the count.
#[inline]
fn send_to_all<C: Channel>(entries: &[Entry<C::Sender>], kind: u32, message: Message) {
    let mut last: Option<&Entry<_>> = None;
    for entry in entries.iter().filter(|entry| entry.accepts == kind) {
        if let Some(entry) = last.replace(entry) {
            C::send(&entry.sender, message.clone());
        }
    }
    if let Some(entry) = last {
        C::send(&entry.sender, message);
    }
}

impl<C: Channel, L: List<Entry<C::Sender>>> Publish for Publisher<L, C> {
    fn publish(&mut self, numbers: Range<u64>) {
        for n in numbers {
            let message = self.maker.message(n);
            self.lists[self.plan.topic(n)].read(|entries| send_to_all::<C>(entries, self.kind, message));
        }
    }
}

/// A consumer that throws everything away, and a closure that puts it on the list and takes it off.
fn churn<C: Channel, L: List<Entry<C::Sender>>>(lists: &Arc<Vec<L>>) -> Box<dyn FnMut() + Send> {
    let (sender, receiver) = C::bounded(CAPACITY);
    thread::spawn(move || while C::receive(&receiver).is_some() {});
    let (lists, id) = (Arc::clone(lists), usize::MAX);
    Box::new(move || {
        lists[0].change(|entries| entries.push(Entry { sender: sender.clone(), accepts: KIND, id }));
        lists[0].change(|entries| entries.retain(|entry| entry.id != id));
    })
}

impl<C: Channel, L: List<Entry<C::Sender>>> Contender for Lists<L, C> {
    fn name(&self) -> String {
        format!("{} + {}{}", L::NAME, C::NAME, self.layout.suffix())
    }

    fn fits(&self, shape: &Shape) -> bool {
        self.layout.fits(shape)
    }

    fn start(&self, shape: &Shape, subscribers: Vec<Subscriber>) -> Running {
        let (ends, threads) = channel::start::<C>(self.layout, shape, subscribers);
        let accepts = if shape.mode == Mode::Filtered { OTHER } else { KIND };
        let list = |topic: usize| {
            let serving = ends.iter().enumerate().filter(|(_, end)| end.topics[topic]);
            L::new(serving.map(|(id, end)| Entry { sender: end.sender.clone(), accepts, id }).collect())
        };
        let lists: Arc<Vec<L>> = Arc::new((0..shape.topics()).map(list).collect());
        let publisher = || Publisher::<L, C> {
            lists: Arc::clone(&lists),
            plan: Arc::clone(&shape.plan),
            maker: Maker::new(&shape.plan),
            kind: KIND,
            channel: PhantomData,
        };
        let publishers = (0..shape.publishers).map(|_| Box::new(publisher()) as Box<dyn Publish>).collect();
        let churn = (shape.mode == Mode::Churn).then(|| churn::<C, L>(&lists));
        Running { publishers, churn, stop: Box::new(|| join(threads)) }
    }
}
