//! Frames on a byte stream: a prefix with the length and its check, then the frame.
//!
//! Reading slices frames out of large blocks, without a copy of their own; writing gathers many
//! frames into few slices. Works on `Read` and `Write`, and knows no socket.
//!
//! Invariant: no more is allocated for a frame than twice what came of it, above `EAGER_BYTES`.

use std::{
    io::{self, IoSlice, Read, Write},
    ops::Range,
};

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;

/// Cuts a stream into frames.
#[derive(Debug)]
pub(super) struct FrameReader {
    /// Initialised to its full length; the first `filled` bytes came from the stream.
    block: BytesMut,
    filled: usize,
    frame_bytes_max: usize,
}

impl FrameReader {
    pub(super) fn new(frame_bytes_max: usize) -> Self {
        Self { block: BytesMut::new(), filled: 0, frame_bytes_max }
    }

    /// Reads once; 0 is the end of the stream.
    pub(super) fn fill(&mut self, stream: &mut impl Read) -> io::Result<usize> {
        if self.block.len() - self.filled < READ_BYTES_MIN {
            self.grow();
        }
        let count = stream.read(&mut self.block[self.filled..])?;
        self.filled += count;
        Ok(count)
    }

    /// The next whole frame; an empty one is a probe.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, StreamFault> {
        let Some(length) = self.length()? else {
            return Ok(None);
        };
        if self.filled < PREFIX_BYTES + length {
            return Ok(None);
        }
        self.block.advance(PREFIX_BYTES);
        let frame = self.block.split_to(length).freeze();
        self.filled -= PREFIX_BYTES + length;
        Ok(Some(frame))
    }

    fn length(&self) -> Result<Option<usize>, StreamFault> {
        if self.filled < PREFIX_BYTES {
            return Ok(None);
        }
        let mut prefix = &self.block[..PREFIX_BYTES];
        let bytes = prefix.get_u32_le();
        if prefix.get_u32_le() != check(bytes) {
            return Err(StreamFault::Prefix);
        }
        let actual = bytes as usize;
        if actual > self.frame_bytes_max {
            return Err(StreamFault::TooLong { actual, max: self.frame_bytes_max });
        }
        Ok(Some(actual))
    }

    /// Makes room: for the frame under way as far as it may be trusted, or for a whole block.
    fn grow(&mut self) {
        let wanted = self.length().ok().flatten().unwrap_or(0) + PREFIX_BYTES;
        let trusted = EAGER_BYTES.max(self.filled * 2);
        let size = wanted.min(trusted).max(BLOCK_BYTES) + READ_BYTES_MIN;
        // The room is taken back in place when nobody holds a frame of it any more.
        self.block.truncate(self.filled);
        self.block.reserve(size - self.filled);
        self.block.resize(size, 0);
    }
}

/// Why a stream of frames cannot go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub(super) enum StreamFault {
    #[error("the prefix of a frame is damaged")]
    Prefix,
    #[error("a frame has at most {max} bytes, not {actual}")]
    TooLong { actual: usize, max: usize },
}

/// Frames that leave together.
#[derive(Debug, Default)]
pub(super) struct FrameBatch {
    /// Prefixes, and the frames that are cheaper to copy than to point at.
    scratch: Vec<u8>,
    large: Vec<Bytes>,
    parts: Vec<Part>,
    bytes: usize,
    count: usize,
}

#[derive(Debug)]
enum Part {
    Scratch(Range<usize>),
    Large(usize),
}

impl FrameBatch {
    pub(super) fn push(&mut self, frame: Bytes) {
        let length = u32::try_from(frame.len()).expect("the queue refuses frames above the limit");
        self.count += 1;
        self.bytes += frame.len();
        let start = self.scratch.len();
        self.scratch.extend_from_slice(&length.to_le_bytes());
        self.scratch.extend_from_slice(&check(length).to_le_bytes());
        let copied = frame.len() <= COPY_BYTES_MAX;
        if copied {
            self.scratch.extend_from_slice(&frame);
        }
        let end = self.scratch.len();
        match self.parts.last_mut() {
            Some(Part::Scratch(range)) => range.end = end,
            _ => self.parts.push(Part::Scratch(start..end)),
        }
        if !copied {
            self.parts.push(Part::Large(self.large.len()));
            self.large.push(frame);
        }
    }

    /// Whether it is worth a system call of its own.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= BATCH_BYTES || self.parts.len() >= BATCH_PARTS || self.count >= BATCH_FRAMES
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Frames in it, probes included.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Bytes of the frames in it, without prefixes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Writes all of it.
    pub(super) fn write_to(&self, stream: &mut impl Write) -> io::Result<()> {
        let mut slices: Vec<IoSlice<'_>> = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            slices.push(IoSlice::new(match part {
                Part::Scratch(range) => &self.scratch[range.clone()],
                Part::Large(at) => &self.large[*at],
            }));
        }
        let mut rest = &mut slices[..];
        while !rest.is_empty() {
            match stream.write_vectored(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => IoSlice::advance_slices(&mut rest, count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    pub(super) fn clear(&mut self) {
        self.scratch.clear();
        self.large.clear();
        self.parts.clear();
        self.bytes = 0;
        self.count = 0;
    }
}

/// The check of a length: a stream that lost its step is noticed at once.
fn check(length: u32) -> u32 {
    crc32c::crc32c(&length.to_le_bytes())
}

pub(super) const PREFIX_BYTES: usize = 8;
/// What is read at once, and what a frame that is kept can pin in memory at most.
const BLOCK_BYTES: usize = 64 << 10;
/// Room below which a read is not worth its system call.
const READ_BYTES_MIN: usize = 4 << 10;
/// What is allocated for a frame before any of it came.
const EAGER_BYTES: usize = 1 << 20;
/// Frames up to here are copied beside their prefix.
const COPY_BYTES_MAX: usize = 2 << 10;
const BATCH_BYTES: usize = 1 << 20;
/// Below the 1,024 slices that systems take at once.
const BATCH_PARTS: usize = 512;
const BATCH_FRAMES: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes and gives at most `step` bytes a call.
    struct Trickle {
        bytes: Vec<u8>,
        at: usize,
        step: usize,
    }

    impl Read for Trickle {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.step.min(buffer.len()).min(self.bytes.len() - self.at);
            buffer[..count].copy_from_slice(&self.bytes[self.at..][..count]);
            self.at += count;
            Ok(count)
        }
    }

    impl Write for Trickle {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = self.step.min(bytes.len());
            self.bytes.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn frames() -> Vec<Bytes> {
        let sizes = [0, 1, 300, 2_048, 2_049, 65_536, 7, 150 << 10, 3 << 20, 0, 5];
        let bytes = |(at, size): (usize, &usize)| Bytes::from(vec![at as u8 + 1; *size]);
        sizes.iter().enumerate().map(bytes).collect()
    }

    fn stream(step: usize) -> Trickle {
        let mut stream = Trickle { bytes: Vec::new(), at: 0, step };
        let mut batch = FrameBatch::default();
        for frame in frames() {
            batch.push(frame);
        }
        batch.write_to(&mut stream).expect("a vector takes all");
        stream
    }

    #[test]
    fn round_trips_in_steps_of_any_size() {
        for step in [1, 7, 4_096, 100_000, 10 << 20] {
            let mut stream = stream(if step == 1 { 100 } else { step });
            stream.step = step;
            let mut reader = FrameReader::new(4 << 20);
            let mut found = Vec::new();
            while reader.fill(&mut stream).expect("a vector never fails") > 0 {
                while let Some(frame) = reader.next().expect("the stream is right") {
                    found.push(frame);
                }
            }
            assert_eq!(found, frames(), "step {step}");
        }
    }

    #[test]
    fn refuses_a_long_frame_before_it_allocates() {
        let mut stream = stream(10 << 20);
        let mut reader = FrameReader::new(100_000);
        let fault = loop {
            assert!(reader.fill(&mut stream).expect("a vector never fails") > 0);
            let mut next = reader.next();
            while let Ok(Some(_)) = next {
                next = reader.next();
            }
            if let Err(fault) = next {
                break fault;
            }
        };
        let (actual, max) = (150 << 10, 100_000);
        assert_eq!(fault, StreamFault::TooLong { actual, max });
        assert!(reader.block.capacity() < 1 << 20);
    }

    #[test]
    fn a_claimed_length_alone_allocates_little() {
        let length = 60_u32 << 20;
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend_from_slice(&check(length).to_le_bytes());
        bytes.extend_from_slice(&[7; 100_000]);
        let mut stream = Trickle { bytes, at: 0, step: 10 << 20 };
        let mut reader = FrameReader::new(64 << 20);
        while reader.fill(&mut stream).expect("a vector never fails") > 0 {
            assert_eq!(reader.next(), Ok(None));
        }
        assert!(reader.block.capacity() <= EAGER_BYTES + (128 << 10));
    }

    #[test]
    fn notices_lost_bytes() {
        let mut stream = stream(10 << 20);
        stream.at = 1;
        let mut reader = FrameReader::new(4 << 20);
        reader.fill(&mut stream).expect("a vector never fails");
        assert_eq!(reader.next(), Err(StreamFault::Prefix));
    }

    #[test]
    fn small_frames_share_one_slice() {
        let mut batch = FrameBatch::default();
        for _ in 0..1_000 {
            batch.push(Bytes::from(vec![1; 300]));
        }
        assert_eq!(batch.parts.len(), 1);
        assert_eq!((batch.count(), batch.bytes()), (1_000, 300_000));
        batch.clear();
        assert!(batch.is_empty());
    }
}
