//! The bytes of an input, as choices.

use bytes::Bytes;

/// Reads choices off an input; what lies behind its end is zeros.
#[derive(Debug)]
pub(super) struct Input(Bytes);

impl Input {
    pub(super) fn new(data: &[u8]) -> Self {
        Self(Bytes::copy_from_slice(data))
    }

    pub(super) fn is_spent(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn byte(&mut self) -> u8 {
        match self.0.is_empty() {
            true => 0,
            false => self.0.split_to(1)[0],
        }
    }

    /// One byte's worth of choice: below `end`, which is not 0.
    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end
    }

    pub(super) fn short(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// A number at the edges of what is possible, near one of those given, or small.
    pub(super) fn number(&mut self, near: &[u64]) -> u64 {
        let choice = self.byte();
        let by = u64::from(choice >> 4);
        match choice % 8 {
            0 => 0,
            1 => u64::MAX - by,
            2 => (1 << 62) - 4 + by,
            3 => u64::from(self.short()),
            4 => 1 << (by * 4),
            _ if near.is_empty() => by,
            _ => near[self.below(near.len())].saturating_add(by).saturating_sub(4),
        }
    }

    pub(super) fn bytes(&mut self, max: usize) -> Bytes {
        let length = self.below(max + 1).min(self.0.len());
        self.0.split_to(length)
    }
}
