//! Does a line make sense after the lines before it? Ids exist and are not gone, callbacks and
//! publishes nest on their thread, every delivery belongs to a publish.

use super::trace::{Cause, Kind, Op, Record, Trace};
use std::collections::HashMap;

/// What a thread is inside of.
#[derive(Debug)]
enum Frame {
    Publish { topic: u32, message: u32, line: u32 },
    Callback { sub: u32, message: u32, line: u32 },
    Unsubscribe { sub: u32, line: u32 },
}

#[derive(Debug, Default)]
struct Thread {
    frames: Vec<Frame>,
    /// A subscribe or unsubscribe whose subscription change has not been published yet.
    awaits_change: bool,
}

/// Lines at which objects ended, by id.
#[derive(Debug, Default)]
struct Ends(HashMap<u32, u32>);

impl Ends {
    fn end(&mut self, kind: &'static str, id: u32, line: u32) -> Result<(), Cause> {
        self.alive(kind, id)?;
        self.0.insert(id, line);
        Ok(())
    }

    fn alive(&self, kind: &'static str, id: u32) -> Result<(), Cause> {
        match self.0.get(&id) {
            Some(&since) => Err(Cause::Gone { kind, id, since }),
            None => Ok(()),
        }
    }
}

/// State of the checks between lines.
#[derive(Debug, Default)]
pub(crate) struct Checker {
    threads: HashMap<u32, Thread>,
    topics: Ends,
    types: Ends,
    forwards: Ends,
    subscriptions: Ends,
    /// Queued and not yet begun: (subscription, message) to how often, and where last.
    queued: HashMap<(u32, u32), (u32, Record)>,
    has_deliveries: bool,
}

impl Checker {
    /// Checks one record; the tables of `trace` hold what earlier lines and this one made.
    pub(crate) fn check(&mut self, trace: &Trace, record: &Record) -> Result<(), Cause> {
        let Record { line, thread, .. } = *record;
        match record.op {
            Op::Thread | Op::Type { .. } | Op::Topic { .. } | Op::Levels => Ok(()),
            Op::Cached { message: 0, .. } | Op::CacheGet { .. } | Op::CacheDump { .. } => Ok(()),
            Op::Cached { topic, message, .. } => {
                self.topic(trace, topic)?;
                known(trace.messages.get(message), "message", message)
            }
            Op::Caching { topic, original, .. } => {
                self.topic(trace, topic)?;
                self.topic(trace, original)
            }
            Op::TypeFreed { ty } => {
                known(trace.types.get(ty), "type", ty)?;
                self.types.end("type", ty, line)
            }
            Op::TopicFreed { topic } => {
                self.topic(trace, topic)?;
                self.topics.end("topic", topic, line)
            }
            Op::PoolDrop { topic: 0, .. } => Ok(()),
            Op::TopicAgain { topic } | Op::Pool { topic } | Op::PoolDrop { topic, .. } | Op::SelfForward { topic } => {
                self.topic(trace, topic)
            }
            Op::PoolGet { parent, topic, .. } => {
                self.topic(trace, parent)?;
                self.topic(trace, topic)
            }
            Op::Subscribe { sub } => {
                self.topic(trace, trace.subscriptions.get(sub).map_or(0, |info| info.topic))?;
                self.thread(thread).awaits_change = true;
                Ok(())
            }
            Op::Listed { sub, topic, .. } => {
                known(trace.subscriptions.get(sub), "subscription", sub)?;
                self.topic(trace, topic)
            }
            Op::Unsubscribe { sub } => {
                self.subscription(trace, sub)?;
                self.subscriptions.end("subscription", sub, line)?;
                let thread = self.thread(thread);
                thread.awaits_change = true;
                thread.frames.push(Frame::Unsubscribe { sub, line });
                Ok(())
            }
            Op::UnsubscribeEnd { sub } => match self.leave(thread) {
                Some(Frame::Unsubscribe { sub: open, .. }) if open == sub => Ok(()),
                _ => Err(Cause::UnsubscribeEndWithoutStart { sub, thread }),
            },
            Op::SubscriptionFreed { sub } | Op::Join { sub } | Op::JoinEnd { sub } => {
                known(trace.subscriptions.get(sub), "subscription", sub)
            }
            Op::Accept { sub, ty } | Op::Decline { sub, ty } => {
                known(trace.subscriptions.get(sub), "subscription", sub)?;
                if ty == 0 { Ok(()) } else { known(trace.types.get(ty), "type", ty) }
            }
            // A filter may change after the end, by somebody who has not heard of it.
            Op::Mode { sub, .. } | Op::Formatters { sub, .. } => {
                known(trace.subscriptions.get(sub), "subscription", sub)
            }
            Op::Forward { forward } => {
                let info = known_value(trace.forwards.get(forward), "forward", forward)?;
                self.topic(trace, info.from)?;
                self.topic(trace, info.to)
            }
            Op::Cancel { forward } => {
                known(trace.forwards.get(forward), "forward", forward)?;
                self.forwards.end("forward", forward, line)
            }
            Op::Message { ty, .. } => known(trace.types.get(ty), "type", ty),
            Op::MessageFreed { message } => known(trace.messages.get(message), "message", message),
            Op::Publish { topic, message, listed, sync } => {
                self.topic(trace, topic)?;
                known(trace.messages.get(message), "message", message)?;
                if sync != 0 {
                    known(trace.subscriptions.get(sync), "subscription", sync)?;
                }
                let ty = trace.type_of(message);
                let thread_state = self.thread(thread);
                if trace.is_change(ty) {
                    if !std::mem::take(&mut thread_state.awaits_change) {
                        return Err(Cause::StrayChange);
                    }
                } else {
                    self.types.alive("type", ty)?;
                }
                if listed > 0 {
                    self.thread(thread).frames.push(Frame::Publish { topic, message, line });
                }
                Ok(())
            }
            Op::PublishEnd { topic, message, .. } => {
                self.has_deliveries = true;
                match self.thread(thread).frames.pop() {
                    Some(Frame::Publish { topic: t, message: m, .. }) if (t, m) == (topic, message) => Ok(()),
                    _ => Err(Cause::PublishEndWithoutPublish { topic, message, thread }),
                }
            }
            Op::Queue { sub, message, is_final } => {
                self.delivery(trace, record, sub, message, is_final)?;
                let entry = self.queued.entry((sub, message)).or_insert((0, *record));
                *entry = (entry.0 + 1, *record);
                Ok(())
            }
            Op::Begin { sub, message, is_final, .. } => {
                let info = known_value(trace.subscriptions.get(sub), "subscription", sub)?;
                if info.kind == Kind::Direct {
                    self.delivery(trace, record, sub, message, is_final)?;
                } else {
                    self.begun(sub, message)?;
                }
                self.thread(thread).frames.push(Frame::Callback { sub, message, line });
                Ok(())
            }
            Op::End { sub, message } => match self.thread(thread).frames.pop() {
                Some(Frame::Callback { sub: s, message: m, .. }) if (s, m) == (sub, message) => Ok(()),
                _ => Err(Cause::EndWithoutBegin { sub, message, thread }),
            },
        }
    }

    /// At the end of the trace nothing may be half done. True if the trace records deliveries.
    pub(crate) fn finish(mut self) -> Result<bool, Cause> {
        let deliveries = self.has_deliveries;
        let open = self.threads.iter_mut().filter_map(|(&thread, state)| {
            if !deliveries {
                state.frames.retain(|frame| !matches!(frame, Frame::Publish { .. }));
            }
            state.frames.first().map(|frame| match *frame {
                Frame::Publish { line, .. } => (line, thread, "a publish"),
                Frame::Callback { line, .. } => (line, thread, "a callback"),
                Frame::Unsubscribe { line, .. } => (line, thread, "an unsubscribe"),
            })
        });
        let queued = self.queued.values().map(|(_, record)| (record.line, record.thread, "a queued delivery"));
        match open.min().or_else(|| queued.min()) {
            Some((since, thread, what)) => Err(Cause::Unfinished { thread, what, since }),
            None => Ok(deliveries),
        }
    }

    /// The innermost frame of a thread ends. Where deliveries are not recorded, no line ends a publish.
    fn leave(&mut self, thread: u32) -> Option<Frame> {
        let open_ended = !self.has_deliveries;
        let frames = &mut self.thread(thread).frames;
        while open_ended && matches!(frames.last(), Some(Frame::Publish { .. })) {
            frames.pop();
        }
        frames.pop()
    }

    fn thread(&mut self, thread: u32) -> &mut Thread {
        self.threads.entry(thread).or_default()
    }

    /// A queue entry or direct call must belong to the publish or the unsubscribe around it.
    fn delivery(
        &mut self,
        trace: &Trace,
        record: &Record,
        sub: u32,
        message: u32,
        is_final: bool,
    ) -> Result<(), Cause> {
        self.has_deliveries = true;
        known(trace.subscriptions.get(sub), "subscription", sub)?;
        known(trace.messages.get(message), "message", message)?;
        let fits = match self.thread(record.thread).frames.last() {
            Some(&Frame::Publish { message: open, .. }) => open == message,
            Some(&Frame::Unsubscribe { sub: leaving, .. }) => is_final && leaving == sub,
            _ => false,
        };
        if fits { Ok(()) } else { Err(Cause::StrayDelivery { sub, message }) }
    }

    fn begun(&mut self, sub: u32, message: u32) -> Result<(), Cause> {
        self.has_deliveries = true;
        let Some(entry) = self.queued.get_mut(&(sub, message)) else {
            return Err(Cause::StrayDelivery { sub, message });
        };
        entry.0 -= 1;
        if entry.0 == 0 {
            self.queued.remove(&(sub, message));
        }
        Ok(())
    }

    fn topic(&self, trace: &Trace, topic: u32) -> Result<(), Cause> {
        known(trace.topics.get(topic), "topic", topic)?;
        self.topics.alive("topic", topic)
    }

    fn subscription(&self, trace: &Trace, sub: u32) -> Result<(), Cause> {
        known(trace.subscriptions.get(sub), "subscription", sub)?;
        self.subscriptions.alive("subscription", sub)
    }
}

fn known<V>(value: Option<&V>, kind: &'static str, id: u32) -> Result<(), Cause> {
    known_value(value, kind, id).map(drop)
}

fn known_value<'a, V>(value: Option<&'a V>, kind: &'static str, id: u32) -> Result<&'a V, Cause> {
    value.ok_or(Cause::UnknownId { kind, id })
}
