//! Mistakes made on purpose, to see that the simulator finds them.
//!
//! Each breaks one promise, in one line, at the very place where it is kept. They exist only under
//! `--cfg quorate_mutants`, one at a time and chosen at run time; otherwise
//! `Mutant::active` is a constant, and the optimizer leaves nothing of them.
//! CONTRIBUTING.md says how to add one.

#[cfg(quorate_mutants)]
use std::sync::atomic::{AtomicUsize, Ordering};

macro_rules! mutants {
    ($($mutant:ident, $name:literal, $source:literal, $breaks:literal;)*) => {
        /// A mistake.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Mutant {
            $(#[doc = $breaks] $mutant,)*
        }

        impl Mutant {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$mutant),*];

            /// What it is called on a command line.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$mutant => $name,)* }
            }

            /// The rule of ARCHITECTURE.md that it breaks, or where else the promise is made.
            pub const fn source(self) -> &'static str {
                match self { $(Self::$mutant => $source,)* }
            }

            /// What it does wrong.
            pub const fn breaks(self) -> &'static str {
                match self { $(Self::$mutant => $breaks,)* }
            }
        }
    };
}

mutants! {
    // The disk.
    AckBeforeSync, "ack-before-sync", "section 2", "entries are acknowledged before their fsync";
    TermForgotten, "term-forgotten", "rule 5", "term and vote are never written";
    VoteForgotten, "vote-forgotten", "rule 5", "the vote is not written, only its term";
    VoteBeforeSync, "vote-before-sync", "rule 5", "a vote leaves before its fsync";
    DiskErrorForgiven, "disk-error-forgiven", "S1", "after a failed write or fsync the log goes on";
    DirectoryNotSynced, "directory-not-synced", "S2", "the manifest's new name is not synced";
    TailCutTooFar, "tail-cut-too-far", "S3", "with a torn batch goes the entry before it";
    HardStateNotCarried, "hard-state-not-carried", "S6", "a new segment does not repeat what goes";
    SnapshotNotSynced, "snapshot-not-synced", "S7", "a snapshot counts before its fsync";
    InstallNoBarrier, "install-no-barrier", "S8", "inputs are taken while an install is out";
    // Consensus.
    TermZeroTaken, "term-zero-taken", "H1", "a message of term 0 reaches raft";
    AnyLogElected, "any-log-elected", "Raft 5.4.1", "votes go to candidates whose log is behind";
    TailCommitted, "tail-committed", "Raft 5.3", "a heartbeat commits whatever the follower has";
    WipedAccepted, "wiped-accepted", "rule 1", "another store under a known member is taken";
    RolledBackAccepted, "rolled-back-accepted", "rule 1", "an older image of a store is taken";
    FounderHurries, "founder-hurries", "rule 1", "a founder votes before all have pinned all";
    // The state machine.
    EntryAppliedTwice, "entry-applied-twice", "rule 5", "the entry after a snapshot counts twice";
    OwnClock, "own-clock", "rule 4", "deadlines pass by the clock of each member";
    OwnWallClock, "own-wall-clock", "rule 2", "nodes get the time of the member that applies";
    DigestNotCompared, "digest-not-compared", "rule 2", "nobody compares states";
    RepliesNotRestored, "replies-not-restored", "S6", "a snapshot loses the kept replies";
    DeadlinesNotRestored, "deadlines-not-restored", "S6", "a snapshot loses the deadlines";
    VersionIgnored, "version-ignored", "section 3", "compare-and-set does not compare";
    GuardIgnored, "guard-ignored", "section 3", "a transaction's guards always hold";
    RefusedStays, "refused-stays", "section 3", "of a refused transaction a part stays done";
    RightsOnlyAlone, "rights-only-alone", "section 3", "in a transaction nobody asks for rights";
    TokenReused, "token-reused", "rule 3", "a new node has the czxid of its parent";
    // Sessions and commands.
    GapTaken, "gap-taken", "rule 7", "a command is applied before those that it follows";
    RepeatApplied, "repeat-applied", "rule 7", "a command that was applied is applied again";
    RepliesDropped, "replies-dropped", "rule 7", "only the newest reply of a session is kept";
    MovedGoesOn, "moved-goes-on", "rule 9", "an attachment that is over goes on writing";
    EpochTakenAgain, "epoch-taken-again", "rule 9", "an attach need not have a greater epoch";
    PlainInstalledAgain, "plain-installed-again", "rule 8", "after an install all is sent again";
    PlainSentAgain, "plain-sent-again", "rule 9", "a new leader gets plain commands once more";
    FrameTakenAgain, "frame-taken-again", "rule 9", "a frame of commands is taken twice";
    // Time and leases.
    NewestAcknowledged, "newest-acknowledged", "rule 3", "any renewal acknowledges the newest one";
    PromiseFromArrival, "promise-from-arrival", "rule 3", "a promise counts from its answer on";
    TicksCarriedTwice, "ticks-carried-twice", "rule 4", "entries carry ticks that others carried";
    ExpiryUnchecked, "expiry-unchecked", "rule 4", "an expiry is not checked again at apply";
    OwnedStays, "owned-stays", "section 3", "a session that ends leaves its ephemeral nodes";
    NoClockEntries, "no-clock-entries", "rule 10", "an idle cluster lets no time pass";
    // Reads and watches.
    ReadUnconfirmed, "read-unconfirmed", "rule 6", "a leader asks nobody whether it still leads";
    OwnWriteUnread, "own-write-unread", "section 3", "a session reads before its own writes";
    ReadBeforeApplied, "read-before-applied", "rule 6", "a read does not wait for its index";
    ReadJoinsRound, "read-joins-round", "rule 6", "a read joins a round that has left";
    ContextReused, "context-reused", "rule 6", "all read rounds have one context";
    WatchGap, "watch-gap", "rule 12", "a watch resumes from before the history";
    WatchStartsLate, "watch-starts-late", "rule 12", "a watch skips what is older than itself";
    EventTwice, "event-twice", "rule 12", "a watch that reads on tells its last event again";
    EventsLate, "events-late", "rule 12", "a watch tells at the next tick, after the reply";
    RightsOfToday, "rights-of-today", "rule 12", "an event asks only for today's rights";
    TransferNotResumed, "transfer-not-resumed", "rule 11", "a chunk that is lost stays lost";
    // Recipes.
    OrderOfNames, "order-of-names", "recipes", "contenders queue by name, not by number";
    HeldPastLease, "held-past-lease", "recipes", "a holder does not look at its clock";
}

impl Mutant {
    /// Whether it is the one that was chosen.
    #[cfg(not(quorate_mutants))]
    pub(crate) const fn active(self) -> bool {
        false
    }

    /// Whether it is the one that was chosen.
    #[cfg(quorate_mutants)]
    pub(crate) fn active(self) -> bool {
        CHOSEN.load(Ordering::Relaxed) == self as usize + 1
    }

    /// From now on the whole process makes this mistake, or none.
    #[cfg(quorate_mutants)]
    pub fn choose(mutant: Option<Self>) {
        CHOSEN.store(mutant.map_or(0, |it| it as usize + 1), Ordering::Relaxed);
    }
}

/// 0, or one more than the mutant's place.
#[cfg(quorate_mutants)]
static CHOSEN: AtomicUsize = AtomicUsize::new(0);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_has_a_name_of_its_own_and_says_what_it_breaks() {
        let names: BTreeSet<&str> = Mutant::ALL.iter().map(|it| it.name()).collect();
        assert_eq!(names.len(), Mutant::ALL.len());
        let texts: BTreeSet<&str> = Mutant::ALL.iter().map(|it| it.breaks()).collect();
        assert_eq!(texts.len(), Mutant::ALL.len());
        for it in Mutant::ALL {
            let lower = |c: char| c.is_ascii_lowercase() || c == '-';
            assert!(!it.name().is_empty() && it.name().chars().all(lower), "{it:?}");
            assert!(!it.source().is_empty() && it.breaks().len() > 10, "{it:?}");
            assert!(!it.active(), "nobody has chosen {it:?}");
        }
        for rule in 1..=12 {
            let rule = format!("rule {rule}");
            assert!(Mutant::ALL.iter().any(|it| it.source() == rule), "{rule} is never broken");
        }
    }
}
