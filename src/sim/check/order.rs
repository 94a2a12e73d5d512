//! Whether some order of operations explains all answers.
//!
//! The algorithm is that of Wing and Gong with the memory of Lowe. Operations whose outcome nobody
//! knows may have taken effect at any time after they were asked for, or never.

use std::{collections::HashSet, hash::Hash};

/// When an operation was asked for and answered; `None` when nobody knows what became of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) began: u64,
    pub(super) ended: Option<u64>,
}

/// What the search has found.
#[derive(Debug)]
pub(super) enum Order {
    Found,
    /// There are too many to try.
    Undecided,
    /// There is none: how many answers the best one explains, and the operations around there.
    None {
        best: usize,
        near: Vec<usize>,
    },
}

/// Looks for one: `after` is the state after an operation, if it can give its answer in this one.
pub(super) fn order<S: Clone + Eq + Hash>(
    spans: &[Span],
    start: S,
    after: impl Fn(usize, &S) -> Option<S>,
) -> Order {
    Search::new(spans).run(start, after)
}

/// Beginnings and ends in the order of time, as a list from which those that have their place are
/// taken out.
struct Search<'a> {
    spans: &'a [Span],
    /// Beginnings and ends; the first is a mark.
    places: Vec<Place>,
    /// Ends that are left.
    ends: usize,
    best: usize,
}

#[derive(Clone, Copy)]
struct Place {
    operation: usize,
    begins: bool,
    /// Of a beginning, where its end stands.
    end: Option<usize>,
    next: usize,
    before: usize,
}

impl<'a> Search<'a> {
    fn new(spans: &'a [Span]) -> Self {
        let mut moments = Vec::new();
        for (at, span) in spans.iter().enumerate() {
            moments.push((span.began, at, true));
            moments.extend(span.ended.map(|ended| (ended, at, false)));
        }
        moments.sort_unstable();
        let mark = Place { operation: usize::MAX, begins: false, end: None, next: 1, before: 0 };
        let mut places = vec![mark];
        let mut began = vec![0; spans.len()];
        for (_, operation, begins) in moments {
            let at = places.len();
            places.push(Place { operation, begins, end: None, next: at + 1, before: at - 1 });
            match begins {
                true => began[operation] = at,
                false => places[began[operation]].end = Some(at),
            }
        }
        let ends = spans.iter().filter(|span| span.ended.is_some()).count();
        Self { spans, places, ends, best: 0 }
    }

    fn run<S: Clone + Eq + Hash>(
        &mut self,
        start: S,
        after: impl Fn(usize, &S) -> Option<S>,
    ) -> Order {
        let (all, mut state) = (self.ends, start);
        let mut placed = vec![0u64; self.spans.len().div_ceil(64)];
        let mut known = HashSet::new();
        let mut order: Vec<(usize, S)> = Vec::new();
        let (mut at, mut lost) = (self.places[0].next, false);
        while self.ends > 0 {
            if known.len() > KNOWN_MAX {
                // Nobody can say, so it is no violation.
                return Order::Undecided;
            }
            let here = self.places.get(at).copied();
            if let Some(place) = here.filter(|place| place.begins) {
                let next = Some(place).filter(|place| place.end.is_none() == lost);
                if let Some(next) = next.and_then(|place| after(place.operation, &state)) {
                    placed[place.operation / 64] ^= 1 << (place.operation % 64);
                    if known.insert((placed.clone(), next.clone())) {
                        order.push((at, std::mem::replace(&mut state, next)));
                        self.take_out(at);
                        self.best = self.best.max(all - self.ends);
                        (at, lost) = (self.places[0].next, false);
                        continue;
                    }
                    placed[place.operation / 64] ^= 1 << (place.operation % 64);
                }
                at = place.next;
                continue;
            }
            // An end whose beginning has no place yet: something of which nobody knows may have
            // happened before it, or the last decision was wrong.
            if !lost {
                (at, lost) = (self.places[0].next, true);
                continue;
            }
            let Some((last, before)) = order.pop() else {
                return Order::None { best: self.best, near: self.near() };
            };
            state = before;
            let operation = self.places[last].operation;
            placed[operation / 64] ^= 1 << (operation % 64);
            self.put_back(last);
            (at, lost) = (self.places[last].next, self.places[last].end.is_none());
        }
        Order::Found
    }

    fn take_out(&mut self, begin: usize) {
        for at in [Some(begin), self.places[begin].end].into_iter().flatten() {
            let Place { next, before, .. } = self.places[at];
            self.places[before].next = next;
            if let Some(next) = self.places.get_mut(next) {
                next.before = before;
            }
        }
        self.ends -= usize::from(self.places[begin].end.is_some());
    }

    fn put_back(&mut self, begin: usize) {
        for at in [self.places[begin].end, Some(begin)].into_iter().flatten() {
            let Place { next, before, .. } = self.places[at];
            self.places[before].next = at;
            if let Some(next) = self.places.get_mut(next) {
                next.before = at;
            }
        }
        self.ends += usize::from(self.places[begin].end.is_some());
    }

    /// A few that were answered about when the best order ends.
    fn near(&self) -> Vec<usize> {
        let ended = |at: &usize| self.spans[*at].ended;
        let mut answered: Vec<usize> =
            (0..self.spans.len()).filter(|at| ended(at).is_some()).collect();
        answered.sort_by_key(ended);
        answered.into_iter().skip(self.best.saturating_sub(2)).take(6).collect()
    }
}

/// States that are remembered before the search gives up.
const KNOWN_MAX: usize = 1 << 19;
