//! kanal, bounded; `send` and `recv` wait as the crate sees fit.

use ::kanal::{Receiver, Sender, bounded};

use super::channel::Channel;
use crate::message::Message;

/// The channel of kanal.
pub(super) struct Kanal;

impl Channel for Kanal {
    const NAME: &'static str = "kanal";
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
