//! How the recipes name their nodes.

use std::fmt::Write as _;

/// Whose node names a recipe uses, so that it contends with that client's holders.
///
/// ```
/// use quorate::recipes::{Layout, Lock};
/// // Contends with Curator's `InterProcessMutex("/locks/a")`:
/// let curator = Lock::new(Layout::Curator, "/locks/a".parse()?);
/// // Contends with kazoo's `client.Lock("/locks/a")`:
/// let kazoo = Lock::new(Layout::Kazoo, "/locks/a".parse()?);
/// # Ok::<(), quorate::PathError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
#[non_exhaustive]
pub enum Layout {
    /// `_c_<uuid>-lock-0000000000` for a lock, `_c_<uuid>-latch-0000000000` for an election.
    #[default]
    Curator,
    /// `<uuid>__lock__0000000000` for both.
    Kazoo,
}

impl Layout {
    pub(crate) fn lock_prefix(self, id: [u8; 16]) -> String {
        self.prefix(id, "-lock-")
    }

    pub(crate) fn election_prefix(self, id: [u8; 16]) -> String {
        self.prefix(id, "-latch-")
    }

    fn prefix(self, id: [u8; 16], mark: &str) -> String {
        match self {
            Self::Curator => format!("_c_{}{mark}", uuid(id, true)),
            Self::Kazoo => format!("{}__lock__", uuid(id, false)),
        }
    }
}

/// The number of a contender's node, or `None` for the node of something else.
///
/// The names of both worlds count: they draw their numbers from the same parent, so a contender
/// of either kind is never overlooked.
pub(crate) fn sequence(name: &str) -> Option<i128> {
    let digits = name.bytes().rev().take_while(u8::is_ascii_digit).count();
    if !(DIGITS_MIN..=DIGITS_MAX).contains(&digits) {
        return None;
    }
    let (head, number) = name.split_at(name.len() - digits);
    let number: i128 = number.parse().ok()?;
    if MARKS.iter().any(|mark| head.ends_with(mark)) {
        return Some(number);
    }
    // ZooKeeper's own counter wraps to negative numbers.
    let head = head.strip_suffix('-')?;
    MARKS.iter().any(|mark| head.ends_with(mark)).then_some(-number)
}

/// A version 4 UUID of these random bytes.
fn uuid(mut bytes: [u8; 16], dashes: bool) -> String {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = String::with_capacity(36);
    for (at, byte) in bytes.iter().enumerate() {
        if dashes && matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        write!(text, "{byte:02x}").expect("a String takes everything");
    }
    text
}

const MARKS: [&str; 3] = ["-lock-", "-latch-", "__lock__"];
const DIGITS_MIN: usize = 10;
const DIGITS_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_curator_and_kazoo() {
        let id = [0xab; 16];
        assert_eq!(
            Layout::Curator.lock_prefix(id),
            "_c_abababab-abab-4bab-abab-abababababab-lock-"
        );
        assert_eq!(
            Layout::Curator.election_prefix(id),
            "_c_abababab-abab-4bab-abab-abababababab-latch-"
        );
        assert_eq!(Layout::Kazoo.lock_prefix(id), "abababababab4bababababababababab__lock__");
    }

    #[test]
    fn only_the_number_counts() {
        assert_eq!(sequence("_c_ffff-lock-0000000007"), Some(7));
        assert_eq!(sequence("0000__lock__0000000008"), Some(8));
        assert_eq!(sequence("_c_0000-latch-0000000009"), Some(9));
        assert_eq!(sequence("x-lock-12345678901"), Some(12_345_678_901));
        assert_eq!(sequence("x__lock__-2147483648"), Some(-2_147_483_648));
        assert_eq!(sequence("x-lock--2147483648"), Some(-2_147_483_648));
        for other in [
            "",
            "config",
            "lease-0000000001",
            "x-lock-1",
            "0000000001",
            "x-lock-000000000000000000001",
        ] {
            assert_eq!(sequence(other), None, "{other:?}");
        }
    }
}
