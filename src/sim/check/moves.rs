//! Sessions that move: nothing of an attachment comes after anything of a later one.

use std::collections::BTreeMap;

use crate::id::{SessionId, Zxid};

/// What the attachments of sessions have written and seen.
///
/// A member that has not heard yet that a session has left it may go on for a while with what
/// happened before: so the order is that of the transactions, not that of time.
#[derive(Debug, Default)]
pub struct Moves {
    attachments: BTreeMap<(SessionId, u64), Attachment>,
}

#[derive(Debug)]
struct Attachment {
    /// The first transaction that it made.
    first: Zxid,
    /// The last one that it made or was told of.
    last: Zxid,
}

impl Moves {
    /// Nobody has a session.
    pub fn new() -> Self {
        Self::default()
    }

    /// A write of a session took effect; `epoch` says under which attachment it was asked for.
    pub fn wrote(&mut self, session: SessionId, epoch: u64, zxid: Zxid) {
        let it = self.attachment(session, epoch);
        it.first = it.first.min(zxid);
        it.last = it.last.max(zxid);
    }

    /// A watch of this attachment told of a transaction.
    pub fn told(&mut self, session: SessionId, epoch: u64, zxid: Zxid) {
        let it = self.attachment(session, epoch);
        it.last = it.last.max(zxid);
    }

    fn attachment(&mut self, session: SessionId, epoch: u64) -> &mut Attachment {
        let new = || Attachment { first: Zxid::new(u64::MAX), last: Zxid::ZERO };
        self.attachments.entry((session, epoch)).or_insert_with(new)
    }

    /// How many attachments there were after the first one of their session.
    pub fn moves(&self) -> u64 {
        self.attachments.keys().filter(|(_, epoch)| *epoch > 1).count() as u64
    }

    /// Whether any attachment wrote or saw what came after a write of a later one.
    ///
    /// # Errors
    ///
    /// Which one, and what.
    pub fn check(&self) -> Result<(), String> {
        let mut before: Option<(SessionId, u64, Zxid)> = None;
        for (&(session, epoch), it) in &self.attachments {
            let earlier = before.filter(|(of, ..)| *of == session);
            if let Some((_, old, last)) = earlier.filter(|(.., last)| *last >= it.first) {
                return Err(format!(
                    "attachment {old} of session {session} goes on until {last}, and attachment \
                     {epoch} writes at {}",
                    it.first
                ));
            }
            let last = earlier.map_or(it.last, |(.., last)| last.max(it.last));
            before = Some((session, epoch, last));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attachment_that_goes_on_after_the_next_one_is_seen() {
        let session = |id| SessionId::new(id).unwrap();
        let mut it = Moves::new();
        it.wrote(session(1), 1, Zxid::new(3));
        it.told(session(1), 1, Zxid::new(5));
        it.wrote(session(1), 2, Zxid::new(6));
        it.wrote(session(2), 1, Zxid::new(4));
        assert!(it.check().is_ok());
        assert_eq!(it.moves(), 1);
        it.told(session(1), 2, Zxid::new(9));
        it.told(session(1), 3, Zxid::new(8));
        assert!(it.check().is_ok(), "what it was told of may be older");
        it.wrote(session(1), 3, Zxid::new(10));
        assert!(it.check().is_ok());
        it.told(session(1), 1, Zxid::new(7));
        assert!(it.check().is_err(), "an event too late");
        let mut it = Moves::new();
        it.wrote(session(1), 2, Zxid::new(6));
        it.wrote(session(1), 1, Zxid::new(7));
        assert!(it.check().is_err(), "a write too late");
    }
}
