//! Recursion: a handler answers a message by publishing the next one from inside, down to zero.

use super::ledger::{Ledger, Verdict};
use super::random::Random;
use super::run::lock;
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use stasis_bus::{Bus, Completion, Delivery, Home, MessageType, Subscription, Topic};

/// Links of a chain at most.
const DEEPEST: usize = 50;
/// Chains under way at most.
const CHAINS: usize = 100;

/// One link of a chain.
#[derive(Debug, Clone, Copy)]
struct Link {
    chain: u64,
    depth: u32,
}

/// A chain under way. The first link is published by a thread, and its publish may still be going on when
/// the echo has it: that one may reach the witness late. All others come one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Chain {
    /// The first link has not come yet.
    first: Option<u32>,
    /// Depth of the next; none: the last one came.
    next: Option<u32>,
}

impl Chain {
    fn new(depth: u32) -> Self {
        Self { first: Some(depth), next: depth.checked_sub(1) }
    }

    /// Whether this link may come now.
    fn take(&mut self, depth: u32) -> bool {
        if self.first == Some(depth) {
            self.first = None;
            return true;
        }
        let expected = self.next == Some(depth);
        if expected {
            self.next = depth.checked_sub(1);
        }
        expected
    }

    fn is_over(self) -> bool {
        self.first.is_none() && self.next.is_none()
    }
}

type Chains = Arc<Mutex<HashMap<u64, Chain>>>;

/// A topic whose one handler echoes.
struct Echo {
    topic: Topic,
    kind: MessageType<Link>,
    chains: Chains,
    ledger: Arc<Ledger>,
}

impl Echo {
    fn publish(&self, link: Link) {
        if self.topic.publish(self.kind.message(link)).is_ok() {
            self.ledger.accepted.fetch_add(1, Ordering::Relaxed);
        } else {
            self.ledger.refused.fetch_add(1, Ordering::Relaxed);
            lock(&self.chains).remove(&link.chain);
        }
    }

    fn answer(&self, link: Link) {
        self.ledger.calls.fetch_add(1, Ordering::Relaxed);
        if link.depth > 0 {
            self.publish(Link { depth: link.depth - 1, ..link });
        }
    }

    fn witness(&self, link: Link) {
        self.ledger.calls.fetch_add(1, Ordering::Relaxed);
        self.ledger.echoes.fetch_add(1, Ordering::Relaxed);
        let mut chains = lock(&self.chains);
        let mut chain = chains.remove(&link.chain);
        let before = chain;
        let expected = chain.as_mut().is_some_and(|chain| chain.take(link.depth));
        if let Some(chain) = chain.filter(|chain| !chain.is_over()) {
            chains.insert(link.chain, chain);
        }
        drop(chains);
        if !expected {
            self.ledger.violated(Verdict::Echo, 1, || format!("{link:?} came at {before:?}"));
        }
    }

    fn subscribe(self: &Arc<Self>, delivery: Delivery, handle: fn(&Echo, Link)) -> Option<Subscription> {
        // The handler holds its own topic until its final message.
        let echo = Arc::clone(self);
        let handler = move |received: &stasis_bus::Received<'_>| {
            if let Some(link) = received.payload::<Link>() {
                handle(&echo, *link);
            }
        };
        self.topic.subscriber().delivery(delivery).accept(&self.kind).subscribe(handler).ok()
    }
}

/// Starts chains, one topic for each delivery, until the soak stops; then waits for their ends.
pub(crate) fn echoes(bus: &Bus, ledger: &Arc<Ledger>, seed: u64) {
    let Ok(kind) = MessageType::<Link>::new(bus, "echo") else { return };
    let deliveries = [Delivery::Lane(Home::Affinity), Delivery::Dedicated, Delivery::Inline];
    let mut subscriptions = Vec::new();
    let mut echoes = Vec::new();
    for (n, delivery) in deliveries.into_iter().enumerate() {
        let Ok(topic) = bus.topic(format!("echo:{n}")) else { return };
        let (chains, ledger) = (Chains::default(), Arc::clone(ledger));
        let echo = Arc::new(Echo { topic, kind: kind.clone(), chains, ledger });
        subscriptions.extend(echo.subscribe(delivery, Echo::answer));
        // The witness is called in the order of publishing; an inline one would be called by the publisher
        // while the echo is already answering.
        subscriptions.extend(echo.subscribe(Delivery::Dedicated, Echo::witness));
        echoes.push(echo);
    }
    let mut random = Random::new(seed, u64::MAX);
    let mut chain = 0;
    while !ledger.stops() {
        let echo = &echoes[random.below(echoes.len())];
        if lock(&echo.chains).len() < CHAINS {
            chain += 1;
            let link = Link { chain, depth: random.below(DEEPEST) as u32 };
            lock(&echo.chains).insert(chain, Chain::new(link.depth));
            echo.publish(link);
        }
        thread::sleep(Duration::from_millis(2));
    }
    let ended = |echo: &Arc<Echo>| super::run::settles(|| lock(&echo.chains).is_empty());
    let open: usize = echoes.iter().filter(|echo| !ended(echo)).map(|echo| lock(&echo.chains).len()).sum();
    ledger.violated(Verdict::Echo, open as u64, || "chains that did not come to their end".to_owned());
    let ends: Vec<Completion> = subscriptions.iter().map(Subscription::unsubscribe).collect();
    let stuck = ends.iter().filter(|end| end.wait_timeout(super::run::PATIENCE).is_err()).count();
    ledger.violated(Verdict::Stuck, stuck as u64, || "echo subscriptions that did not end".to_owned());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(depths: &[u32]) -> (Vec<bool>, bool) {
        let mut chain = Chain::new(3);
        (depths.iter().map(|depth| chain.take(*depth)).collect(), chain.is_over())
    }

    #[test]
    fn links_come_one_by_one_but_the_first_may_be_late() {
        assert_eq!(run(&[3, 2, 1, 0]), (vec![true; 4], true));
        assert_eq!(run(&[2, 1, 3, 0]), (vec![true; 4], true));
        assert!(!run(&[3, 2, 1]).1, "one is missing");
        assert_eq!(run(&[3, 1]).0, [true, false]);
        assert_eq!(run(&[3, 2, 2]).0, [true, true, false]);
        assert_eq!(run(&[3, 3]).0, [true, false]);
    }
}
