//! What the lists need of a channel, and the consumer threads behind it.

use std::thread::{self, JoinHandle};

use crate::contender::{CAPACITY, Layout, Publish, Running, Shape};
use crate::message::Message;
use crate::subscriber::{Group, Subscriber};

/// A bounded channel, waited for in its own way on both ends.
pub(super) trait Channel: 'static {
    /// Name of the crate.
    const NAME: &'static str;
    /// Sending half.
    type Sender: Send + Sync + 'static;
    /// Receiving half.
    type Receiver: Send + 'static;
    /// Both halves.
    fn bounded(capacity: usize) -> (Self::Sender, Self::Receiver);
    /// Sends, waiting while the channel is full.
    fn send(sender: &Self::Sender, message: Message);
    /// The next message; `None` when all senders are gone.
    fn receive(receiver: &Self::Receiver) -> Option<Message>;
}

/// Sends to all; the last channel gets the message itself, not a copy of the count.
#[inline]
pub(super) fn send_to_all<C: Channel>(senders: &[C::Sender], message: Message) {
    if let Some((last, others)) = senders.split_last() {
        for sender in others {
            C::send(sender, message.clone());
        }
        C::send(last, message);
    }
}

/// Starts a consumer thread and a channel for each group; `publisher` makes the publishers.
pub(super) fn start<C: Channel>(
    layout: Layout,
    shape: Shape,
    subscribers: Vec<Subscriber>,
    publisher: impl FnOnce(Vec<C::Sender>) -> Vec<Box<dyn Publish>>,
) -> Running {
    let groups = Group::split(subscribers, layout.threads(shape.subscribers));
    let (senders, threads): (Vec<_>, Vec<_>) = groups.into_iter().map(consumer::<C>).unzip();
    Running { publishers: publisher(senders), stop: Box::new(|| join(threads)) }
}

fn consumer<C: Channel>(mut group: Group) -> (C::Sender, JoinHandle<()>) {
    let (sender, receiver) = C::bounded(CAPACITY);
    let thread = thread::spawn(move || {
        while let Some(message) = C::receive(&receiver) {
            group.receive(&message.payload);
        }
    });
    (sender, thread)
}

/// Waits for consumers whose publishers are gone.
pub(super) fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        thread.join().expect("a consumer panicked");
    }
}
