//! Message types: a name, a small number, formatters; kept alive by handles and by messages.
//!
//! ```text
//!   MessageType<P> ─┐ handles: one counter            slot 17: name, formatters (TypeDetail)
//!   MessageType<P> ─┴────────────────────────────────► ▲
//!   Message, Message, … ── living: one counter a ──────┘ the last of both gone: detail dropped,
//!                          thread shard (no shared line)  number free for the next type
//! ```
//!
//! A message is made on one thread and dies on another, so one shared count per type would bounce
//! its cache line twice a message. Each thread counts on a shard instead; only when the last handle
//! is gone ("closed") are shards summed, by whoever drops a message from then on.
//!
//! Slots are never freed, only used again, so a late look at `closed` is always a look at a slot.
//!
//! Guarantees: a type lives while a handle or a message of it lives (G1, `g01_*`); its detail is
//! dropped once, outside all locks; numbers are below 65,536 at a time. Cost: two atomic adds on
//! unshared lines per message. Models: `loom-tests/tests/types.rs`.
#![allow(unsafe_code)]

use std::fmt;
use std::marker::PhantomData;
use std::ptr;
use std::sync::OnceLock;

use crossbeam_utils::CachePadded;

use super::Message;
use super::formatter::{Event, Formatters};
use super::sanitizer::Sanitizer;
use crate::contain::quietly;
use crate::error::TypeError;
use crate::sync::plain::AtomicU64;
use crate::sync::{Arc, Mutex, MutexGuard, fence, global, lock, scaled, thread_slot};
use crate::sync::{AtomicBool, AtomicIsize, AtomicPtr, AtomicUsize, Ordering};

/// Number of a message type: small, unique among living types of the process, used again later.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TypeId(u32);

impl TypeId {
    /// As a number.
    #[inline]
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Debug for TypeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "type {}", self.0)
    }
}

pub(super) type Format<R> = Box<dyn Fn(&Message) -> Option<R> + Send + Sync>;
pub(super) type FormatFor<R> = Box<dyn Fn(&Message, &dyn Sanitizer) -> Option<R> + Send + Sync>;

/// What a type is: dropped with the last handle and message.
pub(super) struct TypeDetail {
    pub(super) name: Box<str>,
    pub(super) to_json: Option<FormatFor<String>>,
    pub(super) to_ami: Option<Format<String>>,
    pub(super) to_event: Option<Format<Event>>,
    /// Uses by messages that outlived the last handle.
    pub(super) late_uses: Arc<AtomicU64>,
}

impl TypeDetail {
    fn formatters(&self) -> Formatters {
        let bit = |there: bool, bit: Formatters| if there { bit } else { Formatters::NONE };
        bit(self.to_json.is_some(), Formatters::JSON)
            | bit(self.to_ami.is_some(), Formatters::AMI)
            | bit(self.to_event.is_some(), Formatters::EVENT)
    }
}

const SHARDS: usize = scaled(8, 2);

/// The place of one type. Lives for ever, serves many types one after another.
pub(super) struct TypeSlot {
    id: TypeId,
    handles: AtomicUsize,
    closed: AtomicBool,
    /// Null, or a `Box<TypeDetail>` the slot owns. Changed only under [`NUMBERS`], and taken only when
    /// no handle and no message is left; so `detail()` of a handle or message is a live reference.
    detail: AtomicPtr<TypeDetail>,
    /// Messages made minus messages gone, by thread shard.
    living: [CachePadded<AtomicIsize>; SHARDS],
}

struct Numbers {
    next: u32,
    free: Vec<u32>,
}

const CHUNK: u32 = scaled(64, 2) as u32;
const CHUNKS: usize = scaled(1024, 4);

/// All types of the process.
struct Table {
    numbers: Mutex<Numbers>,
    chunks: [OnceLock<Box<[TypeSlot]>>; CHUNKS],
}

global! {
    static TABLE: Table = Table {
        numbers: Mutex::new(Numbers { next: 0, free: Vec::new() }),
        chunks: [const { OnceLock::new() }; CHUNKS],
    };
}

fn numbers() -> MutexGuard<'static, Numbers> {
    lock(&TABLE.numbers)
}

fn slot(number: u32) -> &'static TypeSlot {
    let chunk = TABLE.chunks[(number / CHUNK) as usize].get_or_init(|| {
        let first = number / CHUNK * CHUNK;
        (first..first + CHUNK).map(TypeSlot::empty).collect()
    });
    &chunk[(number % CHUNK) as usize]
}

impl TypeSlot {
    fn empty(number: u32) -> Self {
        Self {
            id: TypeId(number),
            handles: AtomicUsize::new(0),
            closed: AtomicBool::new(true),
            detail: AtomicPtr::new(ptr::null_mut()),
            living: Default::default(),
        }
    }

    #[inline]
    pub(super) fn id(&self) -> TypeId {
        self.id
    }

    /// The detail. Only for those who hold a handle or a message of the type.
    pub(super) fn detail(&self) -> &TypeDetail {
        let detail = self.detail.load(Ordering::Acquire);
        // SAFETY: the field's invariant; every caller borrows from a handle or a message.
        unsafe { &*detail }
    }

    /// As [`detail`](Self::detail), for a message: counts uses after the last handle is gone.
    pub(super) fn detail_for_message(&self) -> &TypeDetail {
        let detail = self.detail();
        if self.closed.load(Ordering::Relaxed) {
            detail.late_uses.fetch_add(1, Ordering::Relaxed);
        }
        detail
    }

    /// Counts a message that is being made. The caller holds a handle.
    #[inline]
    pub(super) fn enter(&self) {
        // Relaxed: the handle the caller holds orders this before closing.
        self.living[thread_slot::current().index() % SHARDS].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a message that is gone. The last one after closing drops the detail.
    #[inline]
    pub(super) fn leave(&self) {
        // Release: what was done with the message comes before the detail is dropped.
        self.living[thread_slot::current().index() % SHARDS].fetch_sub(1, Ordering::AcqRel);
        // Meets the fence in `close`: either we see `closed`, or it sees our count.
        fence::after_rmw();
        if self.closed.load(Ordering::Acquire) {
            self.try_free();
        }
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Release);
        fence::full();
        self.try_free();
    }

    /// Drops the detail if the type is closed and no message is left.
    #[cold]
    fn try_free(&self) {
        let mut numbers = numbers();
        fence::full();
        // After closing, shards only fall, so a sum of zero is a true zero.
        let unused = self.closed.load(Ordering::Acquire)
            && self.handles.load(Ordering::Acquire) == 0
            && self.living.iter().map(|shard| shard.load(Ordering::Acquire)).sum::<isize>() == 0;
        if !unused {
            return;
        }
        let detail = self.detail.swap(ptr::null_mut(), Ordering::AcqRel);
        if detail.is_null() {
            return;
        }
        numbers.free.push(self.id.0);
        drop(numbers);
        // SAFETY: from `Box::into_raw` in `register`; swapped out under the lock, so ours alone.
        let detail = unsafe { Box::from_raw(detail) };
        // It may go with a message whose payload's destructor panics already.
        quietly(|| drop(detail));
    }
}

/// Puts a type into the table.
pub(super) fn register(detail: TypeDetail) -> Result<AnyMessageType, TypeError> {
    let mut numbers = numbers();
    let number = match numbers.free.pop() {
        Some(number) => number,
        None if numbers.next < CHUNK * CHUNKS as u32 => {
            numbers.next += 1;
            numbers.next - 1
        }
        None => return Err(TypeError::TooMany),
    };
    let slot = slot(number);
    slot.detail.store(Box::into_raw(Box::new(detail)), Ordering::Release);
    slot.handles.store(1, Ordering::Release);
    slot.closed.store(false, Ordering::Release);
    Ok(AnyMessageType { slot })
}

/// A message type whatever its payload: what filters and lists are made of.
///
/// Cloning and dropping cost an atomic add. The last handle dropped unregisters the type; messages
/// that still live keep it usable.
pub struct AnyMessageType {
    slot: &'static TypeSlot,
}

impl AnyMessageType {
    /// Name as given at creation.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.slot.detail().name
    }

    /// Number.
    #[inline]
    #[must_use]
    pub fn id(&self) -> TypeId {
        self.slot.id
    }

    /// Formatters the type was made with.
    #[must_use]
    pub fn formatters(&self) -> Formatters {
        self.slot.detail().formatters()
    }

    pub(super) fn slot(&self) -> &'static TypeSlot {
        self.slot
    }
}

impl Clone for AnyMessageType {
    fn clone(&self) -> Self {
        // Relaxed: as any reference count; we hold a handle.
        self.slot.handles.fetch_add(1, Ordering::Relaxed);
        Self { slot: self.slot }
    }
}

impl Drop for AnyMessageType {
    fn drop(&mut self) {
        // AcqRel: the last one sees all that was made through the others.
        if self.slot.handles.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.slot.close();
        }
    }
}

impl PartialEq for AnyMessageType {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

impl Eq for AnyMessageType {}

impl fmt::Debug for AnyMessageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageType")
            .field("name", &self.name())
            .field("id", &self.id().get())
            .field("formatters", &self.formatters())
            .finish()
    }
}

/// A message type with payload `P`: makes messages, stands in filters.
///
/// # Examples
/// ```
/// use stasis_bus::{Bus, Formatters, MessageType};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::builder().lanes(1).build()?;
/// let dial = MessageType::<u32>::builder("channel_dial")
///     .to_json(|count| Some(format!("{{\"dials\":{count}}}")))
///     .create(&bus)?;
/// assert_eq!((dial.name(), dial.formatters()), ("channel_dial", Formatters::JSON));
/// let message = dial.message(3);
/// assert_eq!(message.payload::<u32>(), Some(&3));
/// assert_eq!(message.to_json().as_deref(), Some("{\"dials\":3}"));
/// # Ok(()) }
/// ```
pub struct MessageType<P> {
    any: AnyMessageType,
    /// Copied into every message, so that filters need not look at the type.
    pub(super) cached_formatters: Formatters,
    _payload: PhantomData<fn(P)>,
}

impl<P: Send + Sync + 'static> MessageType<P> {
    /// Starts making a type. [`create`](MessageTypeBuilder::create) makes it.
    #[must_use]
    pub fn builder(name: impl Into<Box<str>>) -> MessageTypeBuilder<P> {
        MessageTypeBuilder { name: name.into(), to_json: None, to_ami: None, to_event: None, _payload: PhantomData }
    }

    /// The type without its payload.
    #[must_use]
    pub fn as_any(&self) -> &AnyMessageType {
        &self.any
    }
}

impl<P> Clone for MessageType<P> {
    fn clone(&self) -> Self {
        Self { any: self.any.clone(), cached_formatters: self.cached_formatters, _payload: PhantomData }
    }
}

impl<P> std::ops::Deref for MessageType<P> {
    type Target = AnyMessageType;
    fn deref(&self) -> &AnyMessageType {
        &self.any
    }
}

impl<P> AsRef<AnyMessageType> for MessageType<P> {
    fn as_ref(&self) -> &AnyMessageType {
        &self.any
    }
}

impl AsRef<AnyMessageType> for AnyMessageType {
    fn as_ref(&self) -> &AnyMessageType {
        self
    }
}

impl<P> fmt::Debug for MessageType<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.any.fmt(f)
    }
}

/// What a type is made of before it exists.
pub struct MessageTypeBuilder<P> {
    name: Box<str>,
    to_json: Option<FormatFor<String>>,
    to_ami: Option<Format<String>>,
    to_event: Option<Format<Event>>,
    _payload: PhantomData<fn(P)>,
}

#[allow(clippy::wrong_self_convention, reason = "named as the formatters they set, as in Stasis")]
impl<P: Send + Sync + 'static> MessageTypeBuilder<P> {
    fn typed<R>(format: impl Fn(&P) -> Option<R> + Send + Sync + 'static) -> Option<Format<R>> {
        Some(Box::new(move |message| format(message.payload::<P>()?)))
    }

    /// Turns a payload into JSON text; `None` if this one has none.
    #[must_use]
    pub fn to_json(self, format: impl Fn(&P) -> Option<String> + Send + Sync + 'static) -> Self {
        self.to_json_sanitized(move |payload, _| format(payload))
    }

    /// Turns a payload into JSON text without what the consumer's sanitizer leaves out; `None` if nothing
    /// is left.
    #[must_use]
    pub fn to_json_sanitized(
        mut self,
        format: impl Fn(&P, &dyn Sanitizer) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.to_json = Some(Box::new(move |message, sanitizer| format(message.payload::<P>()?, sanitizer)));
        self
    }

    /// Turns a payload into the lines of an AMI event.
    #[must_use]
    pub fn to_ami(mut self, format: impl Fn(&P) -> Option<String> + Send + Sync + 'static) -> Self {
        self.to_ami = Self::typed(format);
        self
    }

    /// Turns a payload into an event for other nodes.
    #[must_use]
    pub fn to_event(mut self, format: impl Fn(&P) -> Option<Event> + Send + Sync + 'static) -> Self {
        self.to_event = Self::typed(format);
        self
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Makes the type; late uses are counted in `late_uses`.
    pub(crate) fn register(self, late_uses: Arc<AtomicU64>) -> Result<MessageType<P>, TypeError> {
        if self.name.is_empty() {
            return Err(TypeError::NoName);
        }
        let any = register(TypeDetail {
            name: self.name,
            to_json: self.to_json,
            to_ami: self.to_ami,
            to_event: self.to_event,
            late_uses,
        })?;
        let cached_formatters = any.formatters();
        Ok(MessageType { any, cached_formatters, _payload: PhantomData })
    }
}

impl<P> fmt::Debug for MessageTypeBuilder<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageTypeBuilder").field("name", &self.name).finish_non_exhaustive()
    }
}
