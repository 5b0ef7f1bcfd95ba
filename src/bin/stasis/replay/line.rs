//! One line of JSON to one operation: which keys each operation has, and what values they may take.

use super::trace::{Cause, Change, ForwardInfo, Kind, Op, SubscriptionInfo, TopicInfo, Trace, TypeInfo};
use serde::de::{self, Deserialize, Deserializer, Visitor};
use std::borrow::Cow;
use std::fmt;

/// A line as JSON gives it.
#[derive(Debug, serde::Deserialize)]
#[serde(expecting = "an object")]
pub(crate) struct Line<'a> {
    #[serde(rename = "d")]
    since: i64,
    #[serde(rename = "h")]
    pub(crate) thread: u32,
    #[serde(borrow)]
    o: Cow<'a, str>,
    #[serde(rename = "T")]
    topic: Option<u32>,
    #[serde(rename = "S")]
    sub: Option<u32>,
    #[serde(rename = "F")]
    forward: Option<u32>,
    #[serde(rename = "A")]
    a_topic: Option<u32>,
    #[serde(rename = "B")]
    b_topic: Option<u32>,
    y: Option<u32>,
    m: Option<u32>,
    c: Option<u32>,
    #[serde(borrow)]
    n: Option<Value<'a>>,
    s: Option<u32>,
    g: Option<u32>,
    r: Option<u32>,
    v: Option<u32>,
    a: Option<u32>,
    lo: Option<i64>,
    hi: Option<i64>,
    #[serde(borrow)]
    k: Option<Cow<'a, str>>,
    #[serde(borrow)]
    x: Option<Cow<'a, str>>,
    #[serde(borrow)]
    f: Option<Cow<'a, str>>,
}

/// Key `n` is a name in some operations and a count in others.
#[derive(Debug, Clone)]
enum Value<'a> {
    Count(u32),
    Text(Cow<'a, str>),
}

impl<'de: 'a, 'a> Deserialize<'de> for Value<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Value<'de>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a name or a count")
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value<'de>, E> {
                u32::try_from(value).map(Value::Count).map_err(|_| E::custom("the count is too large"))
            }
            fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Value<'de>, E> {
                Ok(Value::Text(Cow::Borrowed(value)))
            }
            fn visit_str<E>(self, value: &str) -> Result<Value<'de>, E> {
                Ok(Value::Text(Cow::Owned(value.to_owned())))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl<'a> Line<'a> {
    pub(crate) fn parse(raw: &'a [u8]) -> Result<Self, Cause> {
        serde_json::from_slice(raw).map_err(|error| {
            // Its line is always the first: each line is read by itself.
            let text = error.to_string().replace(" at line 1 column ", ", at column ");
            if error.is_data() { Cause::Value(text) } else { Cause::Json(text) }
        })
    }

    /// The time of this line, if the one before was at `last`; refused if it is farther from the start than any
    /// recording (146 years), so that the difference of two times is a number too.
    pub(crate) fn after(&self, last: i64) -> Result<i64, Cause> {
        let at = last.checked_add(self.since).filter(|at| at.unsigned_abs() < 1 << 62);
        at.ok_or_else(|| self.bad("d", self.since))
    }

    /// The operation of this line; what it makes is entered in the tables of `trace`.
    pub(crate) fn operation(&self, trace: &mut Trace) -> Result<Op, Cause> {
        let op = match &*self.o {
            "th" => Op::Thread,
            "y" => {
                let info = TypeInfo { name: self.text()?, formatters: self.need(self.v, "v")? };
                let ty = self.need(self.y, "y")?;
                entered(trace.types.enter(ty, info), "type", ty)?;
                Op::Type { ty }
            }
            "yf" => Op::TypeFreed { ty: self.need(self.y, "y")? },
            "tn" => {
                let detail = self.x.as_deref().unwrap_or_default().to_owned();
                let topic = self.topic()?;
                let info = TopicInfo { name: self.text()?, detail };
                entered(trace.topics.enter(topic, info), "topic", topic)?;
                Op::Topic { topic }
            }
            "te" => Op::TopicAgain { topic: self.topic()? },
            "tf" => Op::TopicFreed { topic: self.topic()? },
            "po" => Op::Pool { topic: self.topic()? },
            "pg" => Op::PoolGet {
                parent: self.need(self.a_topic, "A")?,
                topic: self.topic()?,
                existed: self.flag(self.r, "r")?,
            },
            "pd" => Op::PoolDrop { parent: self.need(self.a_topic, "A")?, topic: self.topic()? },
            "s" => {
                let sub = self.sub()?;
                let info = SubscriptionInfo {
                    topic: self.topic()?,
                    kind: self.kind()?,
                    origin: self.f.as_deref().ok_or_else(|| self.missing("f"))?.to_owned(),
                };
                entered(trace.subscriptions.enter(sub, info), "subscription", sub)?;
                Op::Subscribe { sub }
            }
            "sl" => Op::Listed { sub: self.sub()?, topic: self.topic()?, on: true, length: Some(self.count()?) },
            "su" => {
                let missing = self.r.is_some_and(|r| r != 0);
                let length = if missing { None } else { Some(self.count()?) };
                Op::Listed { sub: self.sub()?, topic: self.topic()?, on: false, length }
            }
            "u" => Op::Unsubscribe { sub: self.sub()? },
            "ue" => Op::UnsubscribeEnd { sub: self.sub()? },
            "sf" => Op::SubscriptionFreed { sub: self.sub()? },
            "fa" => Op::Accept { sub: self.sub()?, ty: self.need(self.y, "y")? },
            "fd" => Op::Decline { sub: self.sub()?, ty: self.need(self.y, "y")? },
            "fm" => {
                let mode = self.need(self.v, "v")?;
                if mode > 2 {
                    return Err(self.bad("v", mode));
                }
                Op::Mode { sub: self.sub()?, mode }
            }
            "ff" => Op::Formatters { sub: self.sub()?, bits: self.need(self.v, "v")? },
            // A forward to itself has no effect, but if it has a number it may be cancelled.
            "f" | "fs" if self.forward.is_some() || *self.o == *"f" => {
                let forward = self.need(self.forward, "F")?;
                let info = match *self.o == *"fs" {
                    true => ForwardInfo { from: self.itself()?, to: self.itself()? },
                    false => ForwardInfo { from: self.need(self.a_topic, "A")?, to: self.need(self.b_topic, "B")? },
                };
                entered(trace.forwards.enter(forward, info), "forward", forward)?;
                Op::Forward { forward }
            }
            "fc" => Op::Cancel { forward: self.need(self.forward, "F")? },
            "fs" => Op::SelfForward { topic: self.itself()? },
            "m" => {
                let (message, ty) = (self.message()?, self.need(self.y, "y")?);
                entered(trace.messages.enter(message, ty), "message", message)?;
                if self.a.unwrap_or(0) != 0 {
                    trace.aggregates.insert(message);
                }
                Op::Message { message, ty }
            }
            "mf" => Op::MessageFreed { message: self.message()? },
            "p" => Op::Publish {
                topic: self.topic()?,
                message: self.message()?,
                listed: self.count()?,
                sync: self.s.unwrap_or(0),
            },
            "pe" => Op::PublishEnd { topic: self.topic()?, message: self.message()?, accepted: self.count()? },
            "q" => Op::Queue { sub: self.sub()?, message: self.message()?, is_final: self.is_final() },
            "b" => Op::Begin {
                sub: self.sub()?,
                message: self.message()?,
                is_final: self.is_final(),
                skipped: self.g.unwrap_or(0) & 4 != 0,
            },
            "e" => Op::End { sub: self.sub()?, message: self.message()? },
            "j" => Op::Join { sub: self.sub()? },
            "je" => Op::JoinEnd { sub: self.sub()? },
            "lv" => {
                self.sub()?;
                self.lo.ok_or_else(|| self.missing("lo"))?;
                self.hi.ok_or_else(|| self.missing("hi"))?;
                Op::Levels
            }
            "ct" => Op::Caching {
                topic: self.topic()?,
                original: self.need(self.a_topic, "A")?,
                cache: self.need(self.c, "c")?,
            },
            "c" => Op::Cached { topic: self.topic()?, message: self.message()?, change: self.change()? },
            "cg" => {
                Op::CacheGet { cache: self.need(self.c, "c")?, ty: self.need(self.y, "y")?, message: self.message()? }
            }
            "cd" => {
                Op::CacheDump { cache: self.need(self.c, "c")?, ty: self.need(self.y, "y")?, entries: self.count()? }
            }
            other => return Err(Cause::UnknownOperation(other.to_owned())),
        };
        Ok(op)
    }

    fn missing(&self, key: &'static str) -> Cause {
        Cause::MissingKey { operation: self.o.to_string(), key }
    }

    fn bad(&self, key: &'static str, value: impl fmt::Display) -> Cause {
        Cause::BadValue { operation: self.o.to_string(), key, value: value.to_string() }
    }

    fn need(&self, value: Option<u32>, key: &'static str) -> Result<u32, Cause> {
        value.ok_or_else(|| self.missing(key))
    }

    fn topic(&self) -> Result<u32, Cause> {
        self.need(self.topic, "T")
    }

    /// The topic that is forwarded to itself.
    fn itself(&self) -> Result<u32, Cause> {
        self.need(self.a_topic.or(self.b_topic).or(self.topic), "A")
    }

    fn sub(&self) -> Result<u32, Cause> {
        self.need(self.sub, "S")
    }

    fn message(&self) -> Result<u32, Cause> {
        self.need(self.m, "m")
    }

    fn flag(&self, value: Option<u32>, key: &'static str) -> Result<bool, Cause> {
        match self.need(value, key)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(self.bad(key, other)),
        }
    }

    fn change(&self) -> Result<Change, Cause> {
        match self.need(self.r, "r")? {
            1 => Ok(Change::Inserted),
            2 => Ok(Change::Updated),
            // 5 and 6: by the unsubscribe of a cached subscription.
            3 | 5 => Ok(Change::Removed),
            4 | 6 => Ok(Change::Nothing),
            other => Err(self.bad("r", other)),
        }
    }

    fn text(&self) -> Result<String, Cause> {
        match &self.n {
            Some(Value::Text(text)) => Ok(text.to_string()),
            Some(Value::Count(count)) => Err(self.bad("n", count)),
            None => Err(self.missing("n")),
        }
    }

    fn count(&self) -> Result<u32, Cause> {
        match &self.n {
            Some(Value::Count(count)) => Ok(*count),
            Some(Value::Text(text)) => Err(self.bad("n", text)),
            None => Err(self.missing("n")),
        }
    }

    fn kind(&self) -> Result<Kind, Cause> {
        match self.k.as_deref() {
            Some("n") => Ok(Kind::Direct),
            Some("m") => Ok(Kind::Mailbox),
            Some("p") => Ok(Kind::Pool),
            Some(other) => Err(self.bad("k", other)),
            None => Err(self.missing("k")),
        }
    }

    /// Bit 2: the final message. (Bit 4: the original skipped the callback; here it is always made.)
    fn is_final(&self) -> bool {
        self.g.unwrap_or(0) & 6 != 0
    }
}

fn entered(done: bool, kind: &'static str, id: u32) -> Result<(), Cause> {
    if done { Ok(()) } else { Err(Cause::BadNewId { kind, id }) }
}
