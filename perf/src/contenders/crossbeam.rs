//! crossbeam-channel, bounded; `send` and `recv` wait as the crate sees fit.

use ::crossbeam_channel::{Receiver, Sender, bounded};

use super::channel::Channel;
use crate::message::Message;

/// The channel of crossbeam-channel.
pub(super) struct Crossbeam;

impl Channel for Crossbeam {
    const NAME: &'static str = "crossbeam-channel";
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
