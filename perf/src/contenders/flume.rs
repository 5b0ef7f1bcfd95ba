//! flume, bounded; `send` and `recv` wait as the crate sees fit.

use ::flume::{Receiver, Sender, bounded};

use super::channel::Channel;
use crate::message::Message;

/// The channel of flume.
pub(super) struct Flume;

impl Channel for Flume {
    const NAME: &'static str = "flume";
    type Sender = Sender<Message>;
    type Receiver = Receiver<Message>;

    fn bounded(capacity: usize) -> (Self::Sender, Self::Receiver) {
        bounded(capacity)
    }

    #[inline]
    fn send(sender: &Self::Sender, message: Message) {
        sender.send(message).expect("consumers outlive publishers");
    }

    #[inline]
    fn receive(receiver: &Self::Receiver) -> Option<Message> {
        receiver.recv().ok()
    }
}
