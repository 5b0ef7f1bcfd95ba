//! Who is idle, who has left, what waits: plain data behind one lock.
//!
//! Invariant: a message waits only while some busy claimant has not declined it; so whoever becomes free finds
//! it. Nothing of the user's is called or dropped in here.

use std::collections::VecDeque;

use super::{Choice, Unclaimed};
use crate::bus::Topic;
use crate::message::Message;

/// A message on its way to somebody who takes it.
pub(super) struct Item {
    pub(super) message: Message,
    /// In order of arrival.
    number: u64,
    /// Who is not to be asked again.
    pub(super) declined: Vec<u64>,
}

/// A claimant.
pub(super) struct Seat {
    id: u64,
    topic: Topic,
    busy: bool,
    taken: u64,
}

/// What is to be done, without the lock.
pub(super) enum Next {
    Nothing,
    Offer { item: Item, claimant: u64, topic: Topic },
    Unclaimed(Item, Unclaimed),
}

pub(super) struct State {
    choice: Choice,
    most_waiting: usize,
    seats: Vec<Seat>,
    /// Where the next turn begins.
    turn: usize,
    /// By number.
    waiting: VecDeque<Item>,
    arrived: u64,
    closed: bool,
}

impl State {
    pub(super) fn new(choice: Choice, most_waiting: usize) -> Self {
        Self { choice, most_waiting, seats: Vec::new(), turn: 0, waiting: VecDeque::new(), arrived: 0, closed: false }
    }

    /// Who is asked about the item now.
    fn choose(&self, item: &Item) -> Option<usize> {
        let seats = self.seats.len();
        let mut may = (0..seats).map(|n| (self.turn + n) % seats).filter(|&at| {
            let seat = &self.seats[at];
            !seat.busy && !item.declined.contains(&seat.id)
        });
        match self.choice {
            Choice::RoundRobin => may.next(),
            Choice::FewestTaken => may.min_by_key(|&at| self.seats[at].taken),
        }
    }

    fn offer(&mut self, at: usize, item: Item) -> Next {
        let seat = &mut self.seats[at];
        seat.busy = true;
        Next::Offer { item, claimant: seat.id, topic: seat.topic.clone() }
    }

    /// A new message. Those that wait already go first: nobody idle wants them.
    pub(super) fn arrived(&mut self, message: Message) -> Next {
        self.arrived += 1;
        self.place(Item { message, number: self.arrived, declined: Vec::new() })
    }

    /// Offers an item, or has it wait.
    pub(super) fn place(&mut self, item: Item) -> Next {
        if self.closed {
            return Next::Unclaimed(item, Unclaimed::Closed);
        }
        if let Some(at) = self.choose(&item) {
            self.turn = (at + 1) % self.seats.len();
            return self.offer(at, item);
        }
        if self.seats.iter().all(|seat| item.declined.contains(&seat.id)) {
            return Next::Unclaimed(item, Unclaimed::Nobody);
        }
        // One that was offered already has its place.
        if item.declined.is_empty() && self.waiting.len() >= self.most_waiting {
            return Next::Unclaimed(item, Unclaimed::TooMany);
        }
        let at = self.waiting.partition_point(|other| other.number < item.number);
        self.waiting.insert(at, item);
        Next::Nothing
    }

    /// A claimant is done with its message: the first one that waits and that it has not declined is its next.
    pub(super) fn free(&mut self, claimant: u64, took: bool) -> Next {
        let Some(at) = self.seats.iter().position(|seat| seat.id == claimant) else { return Next::Nothing };
        self.seats[at].busy = false;
        self.seats[at].taken += u64::from(took);
        let wanted = self.waiting.iter().position(|item| !item.declined.contains(&claimant));
        match wanted.and_then(|which| self.waiting.remove(which)) {
            Some(item) => self.offer(at, item),
            None => Next::Nothing,
        }
    }

    pub(super) fn join(&mut self, id: u64, topic: Topic) -> Next {
        self.seats.push(Seat { id, topic, busy: false, taken: 0 });
        self.free(id, false)
    }

    /// The claimant's seat, and what waited for it alone.
    pub(super) fn leave(&mut self, id: u64) -> (Option<Seat>, Vec<Item>) {
        let at = self.seats.iter().position(|seat| seat.id == id);
        let seat = at.map(|at| self.seats.remove(at));
        let mut lost = Vec::new();
        for item in std::mem::take(&mut self.waiting) {
            if self.seats.iter().all(|seat| item.declined.contains(&seat.id)) {
                lost.push(item);
            } else {
                self.waiting.push_back(item);
            }
        }
        (seat, lost)
    }

    /// The bus is closed: nothing can be offered any more. What waited.
    pub(super) fn close(&mut self) -> Vec<Item> {
        self.closed = true;
        std::mem::take(&mut self.waiting).into()
    }

    /// Waiting messages, claimants.
    pub(super) fn len(&self) -> (usize, usize) {
        (self.waiting.len(), self.seats.len())
    }

    pub(super) fn taken(&self, id: u64) -> u64 {
        self.seats.iter().find(|seat| seat.id == id).map_or(0, |seat| seat.taken)
    }
}
