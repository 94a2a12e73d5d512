//! What a connection has to send: packets behind their lengths. Large data is not copied.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::zookeeper::{
    code::ErrorCode,
    jute::Jute,
    record::{ReplyHeader, StatRecord},
};

#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Before the tail.
    chunks: VecDeque<Bytes>,
    tail: Vec<u8>,
    /// Bytes of the first chunk, or of the tail if there is none, that have left.
    sent: usize,
    length: usize,
}

impl Outbox {
    /// A packet that is not an answer.
    pub(super) fn packet(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.tail.len();
        self.tail.extend_from_slice(&[0; 4]);
        write(&mut self.tail);
        let length = self.tail.len() - start - 4;
        let said = i32::try_from(length).unwrap_or(i32::MAX);
        self.tail[start..start + 4].copy_from_slice(&said.to_be_bytes());
        self.length += length + 4;
    }

    /// Bytes that are no packet.
    pub(super) fn raw(&mut self, bytes: Bytes) {
        self.length += bytes.len();
        let head = std::mem::take(&mut self.tail);
        let chunks = [Bytes::from(head), bytes].into_iter().filter(|it| !it.is_empty());
        self.chunks.extend(chunks);
    }

    /// An answer.
    pub(super) fn reply(
        &mut self,
        (xid, zxid): (i32, i64),
        code: ErrorCode,
        body: impl FnOnce(&mut Vec<u8>),
    ) {
        self.packet(|out| {
            ReplyHeader { xid, zxid, err: code.number() }.write(out);
            body(out);
        });
    }

    /// The answer to getData.
    pub(super) fn node(
        &mut self,
        (xid, zxid): (i32, i64),
        data: Option<&Bytes>,
        stat: &StatRecord,
    ) {
        let Some(data) = data.filter(|data| data.len() >= SHARED_BYTES_MIN) else {
            return self.reply((xid, zxid), ErrorCode::Ok, |out| {
                data.map(|data| &data[..]).write(out);
                stat.write(out);
            });
        };
        let length = HEADER_BYTES + 4 + data.len() + StatRecord::BYTES_MIN;
        i32::try_from(length).unwrap_or(i32::MAX).write(&mut self.tail);
        ReplyHeader { xid, zxid, err: 0 }.write(&mut self.tail);
        i32::try_from(data.len()).unwrap_or(i32::MAX).write(&mut self.tail);
        let head = std::mem::take(&mut self.tail);
        // What has left of the tail stays counted, as it is the first chunk now.
        self.chunks.push_back(Bytes::from(head));
        self.chunks.push_back(data.clone());
        stat.write(&mut self.tail);
        self.length += length + 4;
    }

    /// What is to leave next; empty if nothing is.
    pub(super) fn front(&self) -> &[u8] {
        let first = self.chunks.front().map_or(&self.tail[..], |chunk| &chunk[..]);
        first.get(self.sent..).unwrap_or_default()
    }

    /// So much of the front has left.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.sent += bytes;
        self.length = self.length.saturating_sub(bytes);
        match self.chunks.front() {
            Some(chunk) if self.sent >= chunk.len() => {
                self.sent = 0;
                self.chunks.pop_front();
            }
            None if self.sent >= self.tail.len() => {
                self.sent = 0;
                self.tail.clear();
                self.tail.shrink_to(TAIL_BYTES_KEPT);
            }
            None if self.sent > TAIL_BYTES_KEPT && self.sent > self.tail.len() / 2 => {
                self.tail.drain(..self.sent);
                self.sent = 0;
            }
            _ => {}
        }
    }

    /// Bytes that wait.
    pub(super) fn len(&self) -> usize {
        self.length
    }
}

/// Data from here on is shared with the tree until it has left.
const SHARED_BYTES_MIN: usize = 8 << 10;
const HEADER_BYTES: usize = ReplyHeader::BYTES_MIN;
/// Of a buffer that is empty.
const TAIL_BYTES_KEPT: usize = 64 << 10;
