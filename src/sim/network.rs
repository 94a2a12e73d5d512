//! The simulated network: frames on their way, and what keeps them from arriving.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::{
    driver::Transport,
    id::NodeId,
    node::Message,
    sim::{Rng, disk::Disk},
};

/// A host's end of the network: what it sends, with how long its disk had worked by then.
#[derive(Clone, Debug)]
pub(super) struct Line {
    disk: Disk,
    sent: Arc<Mutex<Vec<(Duration, Message)>>>,
}

impl Line {
    pub(super) fn new(disk: Disk) -> Self {
        Self { disk, sent: Arc::default() }
    }

    /// What was sent since the last call.
    pub(super) fn take(&self) -> Vec<(Duration, Message)> {
        std::mem::take(&mut *self.sent.lock())
    }
}

impl Transport for Line {
    fn send(&mut self, message: Message) {
        // A machine without power sends nothing.
        if !self.disk.is_dark() {
            self.sent.lock().push((self.disk.busy(), message));
        }
    }
}

/// How bad the network is; each is 0 in good weather.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Weather {
    pub(super) loss_ppm: u32,
    pub(super) duplication_ppm: u32,
    pub(super) reordering_ppm: u32,
    pub(super) delay: Duration,
}

#[derive(Debug)]
pub(super) struct Network {
    rng: Rng,
    pub(super) weather: Weather,
    flying: BinaryHeap<Reverse<Frame>>,
    /// From, to: how many faults cut it.
    cut: BTreeMap<(NodeId, NodeId), u32>,
    /// Until when nothing arrives.
    clogged: BTreeMap<(NodeId, NodeId), Duration>,
    /// When the last frame of a link arrives: what follows it comes after it.
    last: BTreeMap<(NodeId, NodeId), Duration>,
    number: u64,
}

/// Ordered by arrival.
#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Frame {
    pub(super) at: Duration,
    number: u64,
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    pub(super) bytes: Bytes,
}

impl Network {
    pub(super) fn new(rng: Rng) -> Self {
        Self {
            rng,
            weather: Weather::default(),
            flying: BinaryHeap::new(),
            cut: BTreeMap::new(),
            clogged: BTreeMap::new(),
            last: BTreeMap::new(),
            number: 0,
        }
    }

    /// Takes a frame that leaves at `now`.
    pub(super) fn send(&mut self, now: Duration, from: NodeId, message: Message) {
        let Message { to, bytes, .. } = message;
        let link = (from, to);
        if self.cut.contains_key(&link) || self.rng.chance(self.weather.loss_ppm) {
            return;
        }
        let copies = 1 + u32::from(self.rng.chance(self.weather.duplication_ppm));
        for _ in 0..copies {
            let mut at = now + DELAY_MIN + self.rng.exponential(DELAY + self.weather.delay);
            if let Some(until) = self.clogged.get(&link) {
                at = at.max(*until);
            }
            if self.rng.chance(self.weather.reordering_ppm) {
                at += self.rng.between(Duration::ZERO, HELD_BACK_MAX);
            } else {
                // As on a connection.
                let last = self.last.entry(link).or_default();
                at = at.max(*last);
                *last = at;
            }
            self.number += 1;
            let (number, bytes) = (self.number, bytes.clone());
            self.flying.push(Reverse(Frame { at, number, from, to, bytes }));
        }
    }

    pub(super) fn next_at(&self) -> Option<Duration> {
        self.flying.peek().map(|frame| frame.0.at)
    }

    /// The next frame that arrives by now. What is on a link when it is cut is lost.
    pub(super) fn arrived(&mut self, now: Duration) -> Option<Frame> {
        loop {
            if self.next_at()? > now {
                return None;
            }
            let Reverse(frame) = self.flying.pop()?;
            if !self.cut.contains_key(&(frame.from, frame.to)) {
                return Some(frame);
            }
        }
    }

    pub(super) fn cut(&mut self, links: &[(NodeId, NodeId)]) {
        for link in links {
            *self.cut.entry(*link).or_default() += 1;
        }
    }

    pub(super) fn mend(&mut self, links: &[(NodeId, NodeId)]) {
        for link in links {
            if let Some(count) = self.cut.get_mut(link) {
                *count -= 1;
                if *count == 0 {
                    self.cut.remove(link);
                }
            }
        }
    }

    pub(super) fn clog(&mut self, link: (NodeId, NodeId), until: Duration) {
        let clogged = self.clogged.entry(link).or_default();
        *clogged = until.max(*clogged);
    }

    /// Mends everything, and good weather: what was held up arrives now.
    pub(super) fn heal(&mut self, now: Duration) {
        let late = self.flying.drain().map(|Reverse(it)| Frame { at: it.at.min(now), ..it });
        self.flying = late.map(Reverse).collect();
        self.cut.clear();
        self.clogged.clear();
        self.last.clear();
        self.weather = Weather::default();
    }
}

/// A frame takes at least this long,
const DELAY_MIN: Duration = Duration::from_micros(100);
/// and so much more on average.
const DELAY: Duration = Duration::from_micros(300);
const HELD_BACK_MAX: Duration = Duration::from_millis(100);
