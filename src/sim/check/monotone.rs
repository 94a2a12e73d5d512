//! Terms, commits, applied entries and zxids never go back, and nobody votes twice in a term.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{
    id::NodeId,
    node::Glimpse,
    wire::{Body, FRAME_BYTES_MAX, Frame},
};

/// Where each member stood.
#[derive(Debug, Default)]
pub(super) struct Monotone {
    /// With the life in which it did.
    last: BTreeMap<NodeId, (u64, Glimpse)>,
    rot: bool,
}

impl Monotone {
    /// A member that is started again has forgotten what it knew to be committed, until its
    /// log or a leader tells it; its term it keeps, and its vote.
    pub(super) fn observe(&mut self, id: NodeId, life: u64, seen: &Glimpse) -> Result<(), String> {
        if seen.applied > seen.commit && !self.rot {
            return Err(format!("{id} applies {} but commits {}", seen.applied, seen.commit));
        }
        let Some((before_life, before)) = self.last.insert(id, (life, *seen)) else {
            return Ok(());
        };
        let back = |what, before: u64, now: u64| match now < before {
            true => Err(format!("the {what} of {id} goes back from {before} to {now}")),
            false => Ok(()),
        };
        back("term", before.term, seen.term)?;
        if seen.term == before.term && before.vote != 0 && seen.vote != before.vote {
            let (term, then, now) = (seen.term, before.vote, seen.vote);
            return Err(format!(
                "the vote of {id} in term {term} was for {then}, and is for {now}"
            ));
        }
        if life == before_life {
            back("commit", before.commit, seen.commit)?;
            back("applied index", before.applied, seen.applied)?;
            back("zxid", before.zxid, seen.zxid)?;
        }
        Ok(())
    }

    /// What a member has sent in a term, or as its vote, binds it, also if its power went in that
    /// very turn, or its disk failed. What it says of a term to come binds nobody.
    pub(super) fn sent(&mut self, id: NodeId, frame: &Bytes) {
        let Ok(Frame { to, body: Body::Raft(message), .. }) = Frame::decode(frame, FRAME_BYTES_MAX)
        else {
            return;
        };
        let Some((_, last)) = self.last.get_mut(&id).filter(|_| !PRE_VOTES.contains(&message.kind))
        else {
            return;
        };
        if message.term > last.term {
            (last.term, last.vote) = (message.term, 0);
        }
        if message.kind == VOTE_ANSWER && message.term == last.term && !message.reject {
            last.vote = to.as_u64();
        }
    }

    /// A memory has gone bad: the state that replaces it is that of a peer, which may be ahead.
    pub(super) fn expect_rot(&mut self) {
        self.rot = true;
    }

    pub(super) fn forget(&mut self, id: NodeId) {
        self.last.remove(&id);
    }
}

/// `eraftpb::MessageType`: the answer to a candidate.
const VOTE_ANSWER: u32 = 6;
/// The question and the answer before an election.
const PRE_VOTES: [u32; 2] = [17, 18];

#[cfg(test)]
mod tests {
    use super::{super::*, *};

    #[test]
    fn what_goes_back_is_seen() {
        let mut it = Monotone::default();
        assert!(it.observe(id(1), 1, &glimpse(2, 7, 6)).is_ok());
        assert!(it.observe(id(1), 2, &glimpse(2, 3, 3)).is_ok(), "it was started again");
        assert!(it.observe(id(1), 2, &glimpse(2, 3, 2)).is_err());
        assert!(it.observe(id(1), 3, &glimpse(1, 3, 3)).is_err());
        assert!(it.observe(id(2), 1, &glimpse(1, 3, 4)).is_err(), "applied but not committed");
        let votes = |term, vote| Glimpse { vote, ..glimpse(term, 0, 0) };
        assert!(it.observe(id(3), 1, &votes(5, 0)).is_ok());
        assert!(it.observe(id(3), 1, &votes(5, 1)).is_ok());
        assert!(it.observe(id(3), 2, &votes(5, 0)).is_err(), "it has forgotten its vote");
        assert!(it.observe(id(4), 1, &votes(5, 1)).is_ok());
        assert!(it.observe(id(4), 1, &votes(6, 2)).is_ok());
    }
}
