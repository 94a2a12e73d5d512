//! Locks and elections: one holder at a time, tokens that grow, and fenced writes that a stale
//! holder cannot make.

use std::collections::BTreeMap;

use crate::id::Zxid;

/// What is known of one lock.
#[derive(Debug, Default)]
pub struct Locks {
    /// Who says that it holds the lock, and its token.
    holders: BTreeMap<String, Zxid>,
    /// The highest token that anybody had, and who has it.
    highest: Zxid,
    highest_of: String,
    /// The token of each fenced write, by the zxid at which it took effect.
    fenced: BTreeMap<Zxid, Zxid>,
    acquired: u64,
}

impl Locks {
    /// Nobody holds it.
    pub fn new() -> Self {
        Self::default()
    }

    /// `who` has acquired it, or says that it still holds it.
    ///
    /// # Errors
    ///
    /// Another one holds it, or its token is not the highest, or was another one's.
    pub fn holds(&mut self, who: &str, token: Zxid) -> Result<(), String> {
        if token < self.highest {
            return Err(format!("{who} holds it by token {token}; {} came before", self.highest));
        }
        if token == self.highest && self.acquired > 0 && self.highest_of != who {
            return Err(format!("{who} holds it by token {token}, as {} did", self.highest_of));
        }
        if token > self.highest || self.acquired == 0 {
            self.acquired += 1;
            (self.highest, self.highest_of) = (token, who.to_owned());
        }
        if let Some((other, theirs)) = self.holders.iter().find(|(other, _)| *other != who) {
            return Err(format!("{who} holds it by token {token}, and {other} by {theirs}"));
        }
        self.holders.insert(who.to_owned(), token);
        Ok(())
    }

    /// `who` does not say any more that it holds it.
    pub fn lost(&mut self, who: &str) {
        self.holders.remove(who);
    }

    /// From now on nobody says so, until they do again: for looking at all at one moment.
    pub fn nobody(&mut self) {
        self.holders.clear();
    }

    /// A write fenced by `token` took effect.
    pub fn wrote(&mut self, zxid: Zxid, token: Zxid) {
        self.fenced.insert(zxid, token);
    }

    /// How often it was acquired.
    pub fn acquired(&self) -> u64 {
        self.acquired
    }

    /// Whether any fenced write took effect after one with a higher token.
    ///
    /// # Errors
    ///
    /// Which one.
    pub fn check(&self) -> Result<(), String> {
        let mut highest = Zxid::ZERO;
        for (zxid, &token) in &self.fenced {
            if token < highest {
                return Err(format!("token {token} wrote at {zxid}, after token {highest}"));
            }
            highest = token;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_holders_old_tokens_and_stale_writes_are_seen() {
        let mut it = Locks::new();
        assert!(it.holds("a", Zxid::new(3)).is_ok());
        assert!(it.holds("b", Zxid::new(5)).is_err(), "two");
        it.lost("a");
        it.lost("b");
        assert!(it.holds("b", Zxid::new(5)).is_ok());
        it.lost("b");
        assert!(it.holds("a", Zxid::new(3)).is_err(), "an old token");
        assert!(it.holds("a", Zxid::new(5)).is_err(), "one that was another's");
        it.wrote(Zxid::new(4), Zxid::new(3));
        it.wrote(Zxid::new(6), Zxid::new(5));
        assert!(it.check().is_ok());
        it.wrote(Zxid::new(7), Zxid::new(3));
        assert!(it.check().is_err(), "not fenced");
    }
}
