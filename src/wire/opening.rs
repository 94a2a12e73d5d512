//! Greetings: who a store is, what its opening starts from, and what it was heard to promise
//! (ARCHITECTURE.md, rule 1).

use bytes::{Buf, Bytes};
use prost::Message as _;

use super::FrameError;
use crate::{
    id::{Boot, Incarnation, NodeId, StoreId},
    proto,
    record::put_delimited,
};

/// Who a store is, and what it knows of the others.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Hello {
    pub(crate) bootstrap: u32,
    pub(crate) founder: bool,
    pub(crate) founded: bool,
    pub(crate) pins: Vec<Pin>,
    pub(crate) reply: bool,
    pub(crate) opening: Opening,
}

/// What an opening of a store starts from.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Opening {
    pub(crate) before: Openings,
    pub(crate) term: u64,
    /// In that term; 0 for nobody.
    pub(crate) vote: u64,
    pub(crate) last_index: u64,
    /// A tail was cut off that may have been acknowledged.
    pub(crate) recovering: bool,
}

/// The earlier openings of a store.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Openings {
    /// Oldest first.
    pub(crate) earlier: Vec<Boot>,
    /// From this boot counter on none that has spoken is missing.
    pub(crate) since: u64,
}

/// What a member has told a peer that it has on its disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Promise {
    pub(crate) term: u64,
    /// Whom it voted for in that term, if that is known; or 0.
    pub(crate) vote: u64,
    /// The last entry that it acknowledged in that term; or 0.
    pub(crate) index: u64,
}

/// A member's store and the newest opening that was seen of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Pin {
    pub(crate) node: NodeId,
    pub(crate) incarnation: Incarnation,
}

/// Why a member does not listen to another.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub(crate) enum Refusal {
    Wiped,
    RolledBack,
    Removed,
    NotAMember,
    OtherBootstrap,
}

impl Hello {
    pub(super) fn to_record(&self) -> proto::Hello {
        let mut pins = Vec::with_capacity(self.pins.len() * 64);
        for pin in &self.pins {
            put_delimited(&mut pins, &pin.to_record());
        }
        proto::Hello {
            bootstrap: self.bootstrap,
            founder: self.founder,
            founded: self.founded,
            pins: pins.into(),
            reply: self.reply,
            opening: Some(self.opening.to_record()),
        }
    }

    pub(super) fn from_record(record: proto::Hello) -> Result<Self, FrameError> {
        Ok(Self {
            bootstrap: record.bootstrap,
            founder: record.founder,
            founded: record.founded,
            pins: Pin::decode_all(record.pins)?,
            reply: record.reply,
            opening: Opening::from_record(record.opening.unwrap_or_default())?,
        })
    }
}

impl Opening {
    pub(super) fn to_record(&self) -> proto::Opening {
        proto::Opening {
            earlier: self.before.to_bytes(),
            since: self.before.since,
            term: self.term,
            vote: self.vote,
            last_index: self.last_index,
            recovering: self.recovering,
        }
    }

    pub(super) fn from_record(record: proto::Opening) -> Result<Self, FrameError> {
        let proto::Opening { earlier, since, term, vote, last_index, recovering } = record;
        let before = Openings::from_bytes(&earlier, since);
        let before = before.ok_or(FrameError::Field { field: "earlier openings" })?;
        Ok(Self { before, term, vote, last_index, recovering })
    }
}

impl Openings {
    pub(crate) fn to_bytes(&self) -> Bytes {
        let both = |boot: &Boot| [boot.counter.to_le_bytes(), boot.nonce.to_le_bytes()];
        self.earlier.iter().flat_map(both).flatten().collect::<Vec<u8>>().into()
    }

    /// `None` if they are none, or too many.
    pub(crate) fn from_bytes(mut bytes: &[u8], since: u64) -> Option<Self> {
        if bytes.len() % 16 != 0 || bytes.len() > EARLIER_MAX * 16 {
            return None;
        }
        let mut earlier = Vec::with_capacity(bytes.len() / 16);
        while bytes.has_remaining() {
            earlier.push(Boot { counter: bytes.get_u64_le(), nonce: bytes.get_u64_le() });
        }
        Some(Self { earlier, since })
    }

    /// An earlier opening is known, and the oldest is forgotten if there are many.
    pub(crate) fn push(&mut self, boot: Boot) {
        self.earlier.push(boot);
        if self.earlier.len() > EARLIER_MAX {
            self.since = self.earlier.remove(0).counter + 1;
        }
    }

    /// Whether the opening `own`, which follows these, comes after `known`, or is it, as far as it
    /// can be said.
    pub(crate) fn descends(&self, own: Boot, known: Boot) -> bool {
        own == known
            || self.earlier.contains(&known)
            || (known.counter < self.since && known.counter < own.counter)
    }
}

impl Promise {
    /// Whether an opening starts without it. What is promised in a term is not taken back in it,
    /// and terms only grow: so nothing else is to be compared.
    pub(crate) fn is_lost(&self, opening: &Opening) -> bool {
        let Self { term, vote, index } = *self;
        let voted_otherwise = vote != 0 && vote != opening.vote;
        opening.term < term
            || (opening.term == term && (voted_otherwise || opening.last_index < index))
    }
}

impl Pin {
    pub(crate) fn to_record(self) -> proto::PinRecord {
        proto::PinRecord {
            node: self.node.as_u64(),
            store: Bytes::copy_from_slice(self.incarnation.store.as_bytes()),
            boot: self.incarnation.boot.counter,
            nonce: self.incarnation.boot.nonce,
        }
    }

    pub(crate) fn from_record(record: proto::PinRecord) -> Result<Self, FrameError> {
        let field = FrameError::Field { field: "pin" };
        let store = <[u8; 16]>::try_from(&record.store[..]).map_err(|_| field)?;
        let boot = Boot { counter: record.boot, nonce: record.nonce };
        Ok(Self {
            node: NodeId::new(record.node).ok_or(field)?,
            incarnation: Incarnation { store: StoreId::from_bytes(store), boot },
        })
    }

    /// Reads length-delimited pins. They are of the members, and of some whose removal is not known
    /// yet; each takes 20 bytes at least, so that the bytes bound their number.
    pub(crate) fn decode_all(mut bytes: Bytes) -> Result<Vec<Self>, FrameError> {
        let mut pins = Vec::with_capacity(bytes.len() / PIN_BYTES_MIN);
        while bytes.has_remaining() {
            let record = proto::PinRecord::decode_length_delimited(&mut bytes)
                .map_err(|_| FrameError::Field { field: "pins" })?;
            pins.push(Self::from_record(record)?);
        }
        Ok(pins)
    }
}

impl Refusal {
    pub(super) fn code(self) -> u32 {
        match self {
            Self::Wiped => 1,
            Self::RolledBack => 2,
            Self::Removed => 3,
            Self::NotAMember => 4,
            Self::OtherBootstrap => 5,
        }
    }

    pub(super) fn from_code(code: u32) -> Result<Self, FrameError> {
        Ok(match code {
            1 => Self::Wiped,
            2 => Self::RolledBack,
            3 => Self::Removed,
            4 => Self::NotAMember,
            5 => Self::OtherBootstrap,
            _ => return Err(FrameError::Field { field: "reason" }),
        })
    }
}

/// Earlier openings that are known of a store. One that was rolled back has to be started so often
/// before a peer tells it that it was.
const EARLIER_MAX: usize = 16;
/// A pin behind its length: a store of 16 bytes, and a node.
const PIN_BYTES_MIN: usize = 1 + 2 + 16 + 2;
