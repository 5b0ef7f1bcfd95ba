//! The channels that the lists fan out over, and the consumer threads behind them.
//!
//! | channel | full | empty |
//! |---|---|---|
//! | crossbeam-channel, flume, kanal | own blocking `send` | own blocking `recv`; spinning: `try_recv` |
//! | concurrent-queue + event-listener | `Backoff::snooze` | `EventListener::wait`; spinning: `pop` |

use std::hint::spin_loop;
use std::sync::Arc;
use std::task::Poll;
use std::thread::{self, JoinHandle};

use concurrent_queue::{ConcurrentQueue, PopError, PushError};
use crossbeam_utils::Backoff;
use event_listener::{Event, Listener};

use crate::contender::{Layout, Shape};
use crate::message::Message;
use crate::subscriber::{Group, Subscriber};

/// A bounded channel, waited for in its own way on both ends.
pub(super) trait Channel: 'static {
    /// Name of the crate.
    const NAME: &'static str;
    /// Sending half.
    type Sender: Clone + Send + Sync + 'static;
    /// Receiving half.
    type Receiver: Send + 'static;
    /// Both halves.
    fn bounded(capacity: usize) -> (Self::Sender, Self::Receiver);
    /// Sends, waiting while the channel is full.
    fn send(sender: &Self::Sender, message: Message);
    /// The next message; `None` when all senders are gone.
    fn receive(receiver: &Self::Receiver) -> Option<Message>;
    /// The same without waiting.
    fn poll(receiver: &Self::Receiver) -> Poll<Option<Message>>;
}

macro_rules! channel {
    ($type:ident, $krate:ident, $name:literal, $poll:expr) => {
        #[doc = concat!("The channel of ", $name, ".")]
        pub(super) struct $type;

        impl Channel for $type {
            const NAME: &'static str = $name;
            type Sender = ::$krate::Sender<Message>;
            type Receiver = ::$krate::Receiver<Message>;

            fn bounded(capacity: usize) -> (Self::Sender, Self::Receiver) {
                ::$krate::bounded(capacity)
            }

            #[inline]
            fn send(sender: &Self::Sender, message: Message) {
                sender.send(message).expect("consumers outlive publishers");
            }

            #[inline]
            fn receive(receiver: &Self::Receiver) -> Option<Message> {
                receiver.recv().ok()
            }

            #[inline]
            fn poll(receiver: &Self::Receiver) -> Poll<Option<Message>> {
                $poll(receiver.try_recv())
            }
        }
    };
}

channel!(Crossbeam, crossbeam_channel, "crossbeam-channel", |polled| match polled {
    Ok(message) => Poll::Ready(Some(message)),
    Err(crossbeam_channel::TryRecvError::Empty) => Poll::Pending,
    Err(crossbeam_channel::TryRecvError::Disconnected) => Poll::Ready(None),
});
channel!(Flume, flume, "flume", |polled| match polled {
    Ok(message) => Poll::Ready(Some(message)),
    Err(flume::TryRecvError::Empty) => Poll::Pending,
    Err(flume::TryRecvError::Disconnected) => Poll::Ready(None),
});
channel!(Kanal, kanal, "kanal", |polled| match polled {
    Ok(Some(message)) => Poll::Ready(Some(message)),
    Ok(None) => Poll::Pending,
    Err(_) => Poll::Ready(None),
});

/// What one would put together oneself: a lock-free queue and a notification.
pub(super) struct Notified;

/// A queue and how to wake who waits for it.
pub(super) struct Shared {
    queue: ConcurrentQueue<Message>,
    pushed: Event,
}

/// The last one closes the queue.
pub(super) struct NotifiedSender(Arc<(Shared, SenderCount)>);

type SenderCount = std::sync::atomic::AtomicUsize;

impl Clone for NotifiedSender {
    fn clone(&self) -> Self {
        self.0.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Self(Arc::clone(&self.0))
    }
}

impl Drop for NotifiedSender {
    fn drop(&mut self) {
        if self.0.1.fetch_sub(1, std::sync::atomic::Ordering::AcqRel) == 1 {
            self.0.0.queue.close();
            self.0.0.pushed.notify(usize::MAX);
        }
    }
}

impl Channel for Notified {
    const NAME: &'static str = "concurrent-queue + event-listener";
    type Sender = NotifiedSender;
    type Receiver = Arc<(Shared, SenderCount)>;

    fn bounded(capacity: usize) -> (Self::Sender, Self::Receiver) {
        let shared = Shared { queue: ConcurrentQueue::bounded(capacity), pushed: Event::new() };
        let shared = Arc::new((shared, SenderCount::new(1)));
        (NotifiedSender(Arc::clone(&shared)), shared)
    }

    #[inline]
    fn send(sender: &Self::Sender, mut message: Message) {
        let shared = &sender.0.0;
        let backoff = Backoff::new();
        loop {
            match shared.queue.push(message) {
                Ok(()) => break,
                Err(PushError::Full(back)) => message = back,
                Err(PushError::Closed(_)) => unreachable!("closed by the last sender"),
            }
            backoff.snooze();
        }
        shared.pushed.notify(1);
    }

    fn receive(receiver: &Self::Receiver) -> Option<Message> {
        loop {
            if let Poll::Ready(message) = Self::poll(receiver) {
                return message;
            }
            let listener = receiver.0.pushed.listen();
            if let Poll::Ready(message) = Self::poll(receiver) {
                return message;
            }
            listener.wait();
        }
    }

    #[inline]
    fn poll(receiver: &Self::Receiver) -> Poll<Option<Message>> {
        match receiver.0.queue.pop() {
            Ok(message) => Poll::Ready(Some(message)),
            Err(PopError::Empty) => Poll::Pending,
            Err(PopError::Closed) => Poll::Ready(None),
        }
    }
}

/// A consumer's end: how to send to it, and which topics it serves.
pub(super) struct End<S> {
    pub(super) sender: S,
    /// Number of subscribers served, by topic; zero: the topic needs not be sent.
    pub(super) topics: Vec<bool>,
}

/// Starts the consumer threads and a channel for each group (or subscriber: `Layout::Queues`).
pub(super) fn start<C: Channel>(
    layout: Layout,
    shape: &Shape,
    subscribers: Vec<Subscriber>,
) -> (Vec<End<C::Sender>>, Vec<JoinHandle<()>>) {
    let (mut ends, spins) = (Vec::new(), shape.spins());
    let mut consumer = |groups: Vec<Group>| {
        let queue = |group: Group| {
            let (sender, receiver) = C::bounded(layout.capacity(shape));
            ends.push(End { sender, topics: (0..shape.topics()).map(|topic| group.serves(topic)).collect() });
            (receiver, group)
        };
        let queues: Vec<_> = groups.into_iter().map(queue).collect();
        thread::spawn(move || consume::<C>(queues, spins))
    };
    let threads = layout.share_out(subscribers).into_iter().map(&mut consumer).collect();
    (ends, threads)
}

/// Takes a message from each queue in turn: every one gets every message.
fn consume<C: Channel>(mut queues: Vec<(C::Receiver, Group)>, spins: bool) {
    while !queues.is_empty() {
        queues.retain_mut(|(receiver, group)| {
            let next = match spins {
                false => C::receive(receiver),
                true => loop {
                    match C::poll(receiver) {
                        Poll::Ready(message) => break message,
                        Poll::Pending => spin_loop(),
                    }
                },
            };
            if let Some(message) = &next {
                group.receive(message);
            }
            next.is_some()
        });
    }
}

/// Waits for consumers whose publishers are gone.
pub(super) fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        thread.join().expect("a consumer panicked");
    }
}
