//! Watches: in order, each transaction once and whole, none left out, and told before any reply
//! that shows it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use crate::{client::Changes, id::Zxid, op::Event};

/// What the watches of one filter have told.
#[derive(Debug, Default)]
pub struct Watches {
    /// What each transaction did, by whoever told it first.
    known: BTreeMap<Zxid, Vec<Event>>,
    /// Transactions that were acknowledged to whoever asked for them, and that all may see.
    acknowledged: BTreeSet<Zxid>,
    streams: BTreeMap<String, Stream>,
    /// Streams that have ended: what they told, from and to.
    ended: Vec<Stream>,
}

#[derive(Clone, Debug)]
struct Stream {
    name: String,
    from: Zxid,
    last: Zxid,
    told: Vec<Zxid>,
}

impl Watches {
    /// Nobody watches.
    pub fn new() -> Self {
        Self::default()
    }

    /// A watch was armed: it tells what happens after `from`.
    pub fn armed(&mut self, name: &str, from: Zxid) {
        let stream = Stream { name: name.to_owned(), from, last: from, told: Vec::new() };
        self.ended.extend(self.streams.insert(name.to_owned(), stream));
    }

    /// It told something.
    ///
    /// # Errors
    ///
    /// Out of order or twice, or not what another watch told of the same transaction.
    pub fn told(&mut self, name: &str, changes: &Changes) -> Result<(), String> {
        let Some(stream) = self.streams.get_mut(name) else {
            return Err(format!("{name} tells without having been armed"));
        };
        let (zxid, last) = (changes.zxid, stream.last);
        if zxid <= last {
            return Err(format!("{name} tells {zxid} after {last}"));
        }
        stream.last = zxid;
        stream.told.push(zxid);
        let known = self.known.entry(zxid).or_insert_with(|| changes.events.clone());
        match *known == changes.events && !changes.events.is_empty() {
            true => Ok(()),
            false => Err(format!("{name} tells {:?} of {zxid}; before: {known:?}", changes.events)),
        }
    }

    /// A reply at the same member shows transaction `zxid`, which the watch must have told before.
    ///
    /// # Errors
    ///
    /// It has not.
    pub fn shown(&self, name: &str, zxid: Zxid) -> Result<(), String> {
        match self.streams.get(name) {
            Some(it) if it.from < zxid && it.last < zxid => {
                Err(format!("{name} has told up to {}, and a reply shows {zxid}", it.last))
            }
            _ => Ok(()),
        }
    }

    /// A transaction was acknowledged that every watch may tell.
    pub fn acknowledged(&mut self, zxid: Zxid) {
        self.acknowledged.insert(zxid);
    }

    /// How many transactions were told by any.
    pub fn known(&self) -> usize {
        self.known.len()
    }

    /// Whether any stream has left out what another one told, or what was acknowledged.
    ///
    /// # Errors
    ///
    /// Which one, and what.
    pub fn check(&self) -> Result<(), String> {
        for stream in self.ended.iter().chain(self.streams.values()) {
            let expected = self.known.range(..=stream.last);
            let expected = expected.map(|(zxid, _)| *zxid).filter(|zxid| *zxid > stream.from);
            // What all of them left out, the one who wrote it knows.
            let after = (Bound::Excluded(stream.from), Bound::Included(stream.last));
            let mut acknowledged = self.acknowledged.range(after);
            if let Some(zxid) = acknowledged.find(|zxid| !self.known.contains_key(zxid)) {
                return Err(format!(
                    "{}, from {} to {}, has left out {zxid}, which was acknowledged",
                    stream.name, stream.from, stream.last
                ));
            }
            let mut told = stream.told.iter();
            for zxid in expected {
                if told.next() != Some(&zxid) {
                    return Err(format!(
                        "{}, from {} to {}, has left out {zxid}: {:?}",
                        stream.name,
                        stream.from,
                        stream.last,
                        self.known.get(&zxid)
                    ));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::EventKind;

    fn changes(zxid: u64) -> Changes {
        let zxid = Zxid::new(zxid);
        let path = "/a".parse().unwrap();
        let event = Event {
            zxid,
            kind: EventKind::DataChanged,
            path,
            czxid: zxid,
            before: None,
            after: None,
            acl: None,
            acl_above: None,
        };
        Changes { zxid, events: vec![event] }
    }

    #[test]
    fn bad_streams_are_seen() {
        let mut it = Watches::new();
        it.armed("a", Zxid::ZERO);
        it.armed("b", Zxid::new(1));
        for zxid in [1, 2, 5] {
            assert!(it.told("a", &changes(zxid)).is_ok());
        }
        assert!(it.told("a", &changes(5)).is_err(), "twice");
        assert!(it.told("a", &changes(4)).is_err(), "out of order");
        let mut torn = changes(5);
        torn.events.push(torn.events[0].clone());
        assert!(it.told("b", &changes(2)).is_ok());
        assert!(it.check().is_ok(), "it may lag");
        assert!(it.shown("b", Zxid::new(2)).is_ok());
        assert!(it.shown("b", Zxid::new(5)).is_err(), "a reply overtakes it");
        assert!(it.told("b", &torn).is_err(), "another content");
        it.armed("c", Zxid::ZERO);
        assert!(it.told("c", &changes(5)).is_ok());
        assert!(it.check().is_err(), "a gap");
    }

    #[test]
    fn what_all_leave_out_is_seen_by_who_wrote_it() {
        let mut it = Watches::new();
        it.armed("a", Zxid::new(1));
        for zxid in [2, 5] {
            assert!(it.told("a", &changes(zxid)).is_ok());
        }
        for zxid in [1, 2, 5, 6] {
            it.acknowledged(Zxid::new(zxid));
        }
        assert!(it.check().is_ok(), "before it was armed, told, and not told yet");
        it.acknowledged(Zxid::new(4));
        assert!(it.check().is_err());
    }
}
