//! Making message types on a bus: it may decline their names, and counts late uses.

use super::Bus;
use crate::error::TypeError;
use crate::message::{MessageType, MessageTypeBuilder};
use crate::sync::Arc;

impl<P: Send + Sync + 'static> MessageType<P> {
    /// A type without formatters.
    ///
    /// # Errors
    /// As [`MessageTypeBuilder::create`].
    pub fn new(bus: &Bus, name: impl Into<Box<str>>) -> Result<Self, TypeError> {
        Self::builder(name).create(bus)
    }
}

impl<P: Send + Sync + 'static> MessageTypeBuilder<P> {
    /// Makes the type. Its messages may be published on any bus; `bus` decides whether it is declined
    /// and counts late uses.
    ///
    /// # Errors
    /// [`TypeError::Declined`] if the bus declines types of this name, [`TypeError::NoName`],
    /// [`TypeError::TooMany`].
    pub fn create(self, bus: &Bus) -> Result<MessageType<P>, TypeError> {
        if bus.core.declined_types.contains(self.name()) {
            return Err(TypeError::Declined(self.name().into()));
        }
        self.register(Arc::clone(&bus.core.late_type_uses))
    }
}
