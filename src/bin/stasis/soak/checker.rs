//! What one subscription must see, checked message by message. No clock, no threads: a pure model.
//!
//! Every message has two numbers: its place among all of its publisher, and its place among those its
//! publisher published on the same topic. A subscription of the topic that everything leads to must see
//! the first without gap, one of another topic the second for messages of that topic; what comes over
//! other forwards must at least be in order.
//!
//! A subscription is entered into the topics that lead to it one after the other. So messages that were
//! published before subscribing had returned, or after ending had begun, may come with gaps.

/// The topic that everything leads to.
pub(crate) const ALL: usize = 0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Lost,
    Doubled,
    Reordered,
    Unexpected,
    AfterFinal,
    Finals,
}

/// A message, as far as the check goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) publisher: usize,
    pub(crate) topic: usize,
    /// Place among all of the publisher.
    pub(crate) number: u64,
    /// Place among those of the publisher on that topic.
    pub(crate) place: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    /// First place seen, and the one expected next.
    run: Option<(u64, u64)>,
    /// Last number of all.
    last: Option<u64>,
}

/// What is known of a subscription from outside. Per publisher, places.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Bounds<'a> {
    /// Those below may have been published before subscribing returned. None: it has not yet.
    pub(crate) from: Option<&'a [u64]>,
    /// Those below were published before ending began. None: it has not yet.
    pub(crate) to: Option<&'a [u64]>,
}

/// Places of a publisher that did not come.
#[derive(Debug, Clone, Copy)]
struct Gap {
    publisher: usize,
    start: u64,
    end: u64,
}

impl Gap {
    /// Whether one of them had to come.
    fn is_loss(self, from: &[u64], to: Option<&[u64]>) -> bool {
        let end = to.map_or(self.end, |to| self.end.min(to[self.publisher]));
        self.start.max(from[self.publisher]) < end
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Checker {
    home: usize,
    seen: Vec<Seen>,
    /// Seen before subscribing had returned: judged at the end.
    gaps: Vec<Gap>,
    finals: u32,
}

impl Checker {
    pub(crate) fn new(home: usize, publishers: usize) -> Self {
        Self { home, seen: vec![Seen::default(); publishers], gaps: Vec::new(), finals: 0 }
    }

    /// A message came.
    pub(crate) fn take(&mut self, mark: Mark, bounds: Bounds<'_>) -> Result<(), Fault> {
        if self.finals > 0 {
            return Err(Fault::AfterFinal);
        }
        let seen = self.seen.get_mut(mark.publisher).ok_or(Fault::Unexpected)?;
        let last = seen.last;
        if last.is_some_and(|last| mark.number <= last) {
            return Err(if last == Some(mark.number) { Fault::Doubled } else { Fault::Reordered });
        }
        seen.last = Some(mark.number);
        let place = match self.home {
            ALL => mark.number,
            home if home == mark.topic => mark.place,
            _ => return Ok(()),
        };
        let (first, expected) = seen.run.unwrap_or((place, place));
        seen.run = Some((first, place + 1));
        let gap = Gap { publisher: mark.publisher, start: expected, end: place };
        match bounds.from {
            Some(from) if gap.is_loss(from, bounds.to) => return Err(Fault::Lost),
            None if gap.start < gap.end => self.gaps.push(gap),
            _ => {}
        }
        Ok(())
    }

    /// The final message came.
    pub(crate) fn finish(&mut self) -> Result<(), Fault> {
        self.finals += 1;
        if self.finals == 1 { Ok(()) } else { Err(Fault::Finals) }
    }

    /// The handler is dropped; `from` and `to` as in [`Bounds`].
    pub(crate) fn end(&self, from: &[u64], to: &[u64]) -> Result<(), Fault> {
        if self.finals != 1 {
            return Err(Fault::Finals);
        }
        if self.gaps.iter().any(|gap| gap.is_loss(from, Some(to))) {
            return Err(Fault::Lost);
        }
        for ((seen, from), to) in self.seen.iter().zip(from).zip(to) {
            let missing = match seen.run {
                None => from < to,
                Some((first, next)) => from < to && (first > *from || next < *to),
            };
            if missing {
                return Err(Fault::Lost);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(number: u64) -> Mark {
        Mark { publisher: 0, topic: 1, number, place: number / 2 }
    }

    fn after(home: usize, numbers: &[u64]) -> (Checker, Vec<Result<(), Fault>>) {
        let mut checker = Checker::new(home, 2);
        let bounds = Bounds { from: Some(&[0, 0]), to: None };
        let results = numbers.iter().map(|number| checker.take(mark(*number), bounds)).collect();
        (checker, results)
    }

    #[test]
    fn a_run_without_gap_is_fine_wherever_it_begins() {
        let (mut checker, results) = after(ALL, &[5, 6, 7]);
        assert!(results.iter().all(Result::is_ok));
        assert_eq!(checker.finish(), Ok(()));
        assert_eq!(checker.end(&[6, 0], &[8, 0]), Ok(()));
    }

    #[test]
    fn a_gap_is_a_loss() {
        assert_eq!(after(ALL, &[5, 7]).1, [Ok(()), Err(Fault::Lost)]);
        // On another topic places count: 4 and 6 are places 2 and 3, 10 is place 5.
        assert_eq!(after(1, &[4, 6, 10]).1, [Ok(()), Ok(()), Err(Fault::Lost)]);
        assert_eq!(after(2, &[4, 6, 10]).1, [Ok(()); 3], "over forwards that come and go");
    }

    #[test]
    fn gaps_while_subscribing_or_ending_are_no_loss() {
        let run = |from: Option<&[u64]>, to: Option<&[u64]>| {
            let mut checker = Checker::new(ALL, 2);
            let results = [5, 8].map(|number| checker.take(mark(number), Bounds { from, to }));
            checker.finish().unwrap();
            (results[1], checker)
        };
        assert_eq!(run(Some(&[8, 0]), None).0, Ok(()));
        assert_eq!(run(Some(&[7, 0]), None).0, Err(Fault::Lost), "7 is missing");
        assert_eq!(run(Some(&[5, 0]), Some(&[6, 0])).0, Ok(()));
        assert_eq!(run(Some(&[5, 0]), Some(&[7, 0])).0, Err(Fault::Lost), "6 is missing");
        // Seen before subscribing has returned: judged later.
        let (result, checker) = run(None, None);
        assert_eq!(result, Ok(()));
        assert_eq!(checker.end(&[8, 0], &[9, 0]), Ok(()));
        assert_eq!(checker.end(&[7, 0], &[9, 0]), Err(Fault::Lost));
    }

    #[test]
    fn the_same_again_and_an_older_one_are_told_apart() {
        for home in [ALL, 1, 2] {
            assert_eq!(after(home, &[4, 4]).1[1], Err(Fault::Doubled));
            assert_eq!(after(home, &[4, 6, 4]).1[2], Err(Fault::Reordered));
        }
    }

    #[test]
    fn a_loss_at_either_end_is_found_at_the_end() {
        let (mut checker, _) = after(ALL, &[5, 6]);
        assert_eq!(checker.end(&[5, 0], &[7, 0]), Err(Fault::Finals), "no final message");
        checker.finish().unwrap();
        assert_eq!(checker.end(&[5, 0], &[7, 0]), Ok(()));
        assert_eq!(checker.end(&[4, 0], &[7, 0]), Err(Fault::Lost), "the first one");
        assert_eq!(checker.end(&[5, 0], &[8, 0]), Err(Fault::Lost), "the last one");
        assert_eq!(checker.end(&[5, 3], &[7, 4]), Err(Fault::Lost), "all of the other publisher");
        assert_eq!(checker.end(&[5, 3], &[7, 3]), Ok(()));
        assert_eq!(checker.end(&[9, 0], &[8, 0]), Ok(()), "ended before the next publish: nothing had to come");
    }

    #[test]
    fn the_final_message_is_the_last_and_comes_once() {
        let (mut checker, _) = after(ALL, &[5]);
        assert_eq!(checker.finish(), Ok(()));
        assert_eq!(checker.take(mark(6), Bounds::default()), Err(Fault::AfterFinal));
        assert_eq!(checker.finish(), Err(Fault::Finals));
        assert_eq!(checker.end(&[0, 0], &[0, 0]), Err(Fault::Finals));
    }

    #[test]
    fn a_publisher_nobody_knows_is_unexpected() {
        assert_eq!(
            Checker::new(ALL, 1).take(Mark { publisher: 1, ..mark(0) }, Bounds::default()),
            Err(Fault::Unexpected)
        );
    }
}
