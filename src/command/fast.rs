//! A quick way to write and read sessions' transactions, which are nearly all of a log.
//!
//! It knows transactions without guards, and reads the bytes only as the encoder writes them: each
//! field once, in ascending order. For anything else it says nothing, and the generated codec
//! decides; tests compare the two.

use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{encode_varint, encoded_len_varint};

use super::{
    Command, session,
    txn::{mode_code, mode_from_code},
};
use crate::{
    op::{Acl, Body, Lifetime, Op, Step, Txn},
    path::{Path, PathPrefix},
};

/// A session's transaction without guards as a `CommandRecord` behind its length.
pub(super) fn encode(command: &Command) -> Option<Bytes> {
    let Command::SessionTxn { session, epoch, seq, acked, txn } = command else {
        return None;
    };
    if !txn.guards().is_empty() {
        return None;
    }
    let Body::One(step) = txn.body() else {
        return None;
    };
    let (number, path, data, last) = match &step.op {
        Op::Create { path, data, mode, acl }
            if !matches!(mode.lifetime(), Lifetime::Ttl(_))
                && mode.lease().is_none()
                && acl.as_ref().is_none_or(Acl::is_open) =>
        {
            let mode = Some(mode_code(*mode).into()).filter(|&mode| mode != 0);
            let open = acl.as_ref().map(|_| (7, 1));
            (2, path.as_str(), step.given(data), [mode.map(|mode| (3, mode)), open])
        }
        Op::Set { path, data, version } => {
            (3, path.as_str(), step.given(data), [version.map(|version| (3, version)), None])
        }
        Op::Delete { path, version } => {
            (4, path.as_str(), None, [version.map(|version| (2, version)), None])
        }
        _ => return None,
    };
    let last = || last.into_iter().flatten();
    let op = bytes_len(path.as_bytes())
        + data.map_or(0, |data| present_len(data))
        + last().map(|it| number_len(it.1)).sum::<usize>();
    let zookeeper = u64::from(txn.is_for_zookeeper());
    let txn = 1 + encoded_len_varint(op as u64) + op + 2 * usize::from(txn.is_for_zookeeper());
    let numbers = [session.as_u64(), *epoch, *seq, *acked];
    let present = numbers.into_iter().filter(|&value| value != 0);
    let session = present.map(number_len).sum::<usize>() + 1 + encoded_len_varint(txn as u64) + txn;
    let record = 1 + encoded_len_varint(session as u64) + session;
    let mut out = BytesMut::with_capacity(record + encoded_len_varint(record as u64));
    encode_varint(record as u64, &mut out);
    put_head(1, session, &mut out);
    for (n, value) in (1..).zip(numbers) {
        put_number(n, value, &mut out);
    }
    put_head(5, txn, &mut out);
    put_head(number, op, &mut out);
    put_bytes(1, path.as_bytes(), &mut out);
    if let Some(data) = data {
        put_head(2, data.len(), &mut out);
        out.put_slice(data);
    }
    for (number, value) in last() {
        out.put_u8(number << 3);
        encode_varint(value, &mut out);
    }
    put_number(7, zookeeper, &mut out);
    Some(out.freeze())
}

fn put_head(number: u8, length: usize, out: &mut BytesMut) {
    out.put_u8(number << 3 | LENGTH_DELIMITED);
    encode_varint(length as u64, out);
}

fn put_bytes(number: u8, bytes: &[u8], out: &mut BytesMut) {
    if !bytes.is_empty() {
        put_head(number, bytes.len(), out);
        out.put_slice(bytes);
    }
}

fn put_number(number: u8, value: u64, out: &mut BytesMut) {
    if value != 0 {
        out.put_u8(number << 3);
        encode_varint(value, out);
    }
}

fn bytes_len(bytes: &[u8]) -> usize {
    if bytes.is_empty() { 0 } else { present_len(bytes) }
}

/// Of bytes that are written though there are none.
fn present_len(bytes: &[u8]) -> usize {
    1 + encoded_len_varint(bytes.len() as u64) + bytes.len()
}

fn number_len(value: u64) -> usize {
    1 + encoded_len_varint(value)
}

/// The transaction in a `CommandRecord`, if it is one without guards, in canonical form.
pub(super) fn session_txn(record: &Bytes) -> Option<Command> {
    let mut command = Fields::new(record);
    let mut it = Fields::new(command.bytes(1)?);
    command.end()?;
    let session = session(it.number(1)).ok()?;
    let (epoch, seq, acked) = (it.number(2), it.number(3), it.number(4));
    let mut txn = Fields::new(it.bytes(5)?);
    it.end()?;
    let body = Body::One(step(record, &mut txn)?);
    let zookeeper = txn.flag(7)?;
    txn.end()?;
    let txn = Txn::with_body(body);
    let txn = if zookeeper { txn.for_zookeeper() } else { txn };
    Some(Command::SessionTxn { session, epoch, seq, acked, txn })
}

fn step(record: &Bytes, txn: &mut Fields<'_>) -> Option<Step> {
    if let Some(create) = txn.bytes(2) {
        let mut it = Fields::new(create);
        let (path, data) = (it.bytes(1)?, it.bytes(2));
        let mode = mode_from_code(u32::try_from(it.number(3)).ok()?, 0, None)?;
        let acl = it.flag(7)?.then(Acl::open);
        it.end()?;
        let path = match mode.is_sequential() {
            true => PathPrefix::from_bytes(path).ok()?,
            false => Path::from_bytes(path).ok()?.into(),
        };
        let (null, data) = (data.is_none(), record.slice_ref(data.unwrap_or_default()));
        return Some(Step { op: Op::Create { path, data, mode, acl }, null });
    }
    if let Some(set) = txn.bytes(3) {
        let mut it = Fields::new(set);
        let (path, data) = (it.bytes(1)?, it.bytes(2));
        let version = it.maybe_number(3);
        it.end()?;
        let path = Path::from_bytes(path).ok()?;
        let (null, data) = (data.is_none(), record.slice_ref(data.unwrap_or_default()));
        return Some(Step { op: Op::Set { path, data, version }, null });
    }
    let mut it = Fields::new(txn.bytes(4)?);
    let (path, version) = (it.bytes(1)?, it.maybe_number(2));
    it.end()?;
    Some(Op::Delete { path: Path::from_bytes(path).ok()?, version }.into())
}

/// The fields of one record, taken in ascending order of their numbers, all below 16.
struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    /// The bytes of field `number`, if it is next.
    fn bytes(&mut self, number: u8) -> Option<&'a [u8]> {
        let after_key = self.rest.strip_prefix(&[number << 3 | LENGTH_DELIMITED])?;
        let (length, rest) = varint(after_key)?;
        let length = usize::try_from(length).ok()?;
        let value = rest.get(..length)?;
        self.rest = &rest[length..];
        Some(value)
    }

    /// The number in field `number`, if it is next.
    fn maybe_number(&mut self, number: u8) -> Option<u64> {
        let after_key = self.rest.strip_prefix(&[number << 3])?;
        let (value, rest) = varint(after_key)?;
        self.rest = rest;
        Some(value)
    }

    /// The number in field `number`, or 0: that is not written.
    fn number(&mut self, number: u8) -> u64 {
        self.maybe_number(number).unwrap_or(0)
    }

    /// What field `number` says, as its encoder writes it: true, or not at all.
    fn flag(&mut self, number: u8) -> Option<bool> {
        match self.maybe_number(number) {
            None => Some(false),
            Some(value) => (value == 1).then_some(true),
        }
    }

    /// Nothing follows.
    fn end(&self) -> Option<()> {
        self.rest.is_empty().then_some(())
    }
}

/// A number of at most 63 bits, in its shortest form, and what follows it.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (n, &byte) in bytes.iter().take(9).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * n);
        if byte < 0x80 {
            let shortest = byte != 0 || n == 0;
            return shortest.then_some((value, &bytes[n + 1..]));
        }
    }
    None
}

const LENGTH_DELIMITED: u8 = 2;

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::{
        id::SessionId,
        op::{Acl, Check, CreateMode, Guard},
        proto,
    };

    fn generated(record: &Bytes) -> Option<Command> {
        let record = proto::CommandRecord::decode(record.clone()).ok()?;
        Command::from_record(record).ok()
    }

    fn record(op: Op, guards: &[Guard], numbers: [u64; 4]) -> Bytes {
        let txn = guards.iter().fold(Txn::new(op), |txn, guard| txn.guard(guard.clone()));
        record_of(txn, numbers)
    }

    fn record_of(txn: Txn, numbers: [u64; 4]) -> Bytes {
        let [id, epoch, seq, acked] = numbers;
        let session = SessionId::new(id).expect("valid");
        let command = Command::SessionTxn { session, epoch, seq, acked, txn };
        command.to_record().encode_to_vec().into()
    }

    fn records() -> Vec<Bytes> {
        let path = Path::new("/app/config").expect("valid");
        let prefix = Path::sequential_prefix("/app/").expect("valid");
        let data = Bytes::from(vec![200; 300]);
        let version = Some(300);
        let ops = [
            Op::Set { path: path.clone(), data: data.clone(), version },
            Op::Set { path: path.clone(), data: Bytes::new(), version: Some(0) },
            Op::Delete { path: path.clone(), version: None },
            Op::Delete { path: path.clone(), version },
            Op::Create { path: path.into(), data, mode: CreateMode::Ephemeral, acl: None },
            Op::Create {
                path: prefix,
                data: Bytes::new(),
                mode: CreateMode::PersistentSequential,
                acl: Some(Acl::open()),
            },
        ];
        let numbers = [[1, 1, 1, 0], [(1 << 56) - 1, 1 << 40, (1 << 62) + 5, 77]];
        let txns = ops.into_iter().flat_map(|op| {
            let null =
                matches!(&op, Op::Set { data, .. } | Op::Create { data, .. } if data.is_empty());
            let null = null.then(|| Body::One(Step { op: op.clone(), null: true }));
            let plain = [Txn::new(op)].into_iter().chain(null.map(Txn::with_body));
            plain.flat_map(|txn| [txn.clone(), txn.for_zookeeper()])
        });
        txns.flat_map(|txn| numbers.map(|numbers| record_of(txn.clone(), numbers))).collect()
    }

    #[test]
    fn reads_what_the_encoder_writes() {
        for record in records() {
            let command = session_txn(&record);
            assert!(command.is_some(), "{record:?}");
            assert_eq!(command, generated(&record));
        }
        let guard = Guard { path: Path::root(), check: Check::Exists(true) };
        let op = Op::Delete { path: Path::new("/a").expect("valid"), version: None };
        assert_eq!(session_txn(&record(op, &[guard], [1; 4])), None, "guards take the long way");
    }

    /// Byte for byte what prost writes, for whatever it takes; the rest it leaves to prost.
    #[test]
    fn writes_what_the_generated_codec_writes() {
        let path = || Path::new("/app/config").expect("valid");
        let ttl = CreateMode::Ttl(std::time::Duration::from_millis(3));
        let slow = [
            Op::Create { path: path().into(), data: Bytes::new(), mode: ttl, acl: None },
            Op::Create {
                path: path().into(),
                data: Bytes::new(),
                mode: CreateMode::Persistent,
                acl: Some(Acl::creator()),
            },
            Op::Get { path: path() },
            Op::DeleteTree { path: path() },
        ];
        let slow = slow.map(|op| (record(op, &[], [1; 4]), false));
        let mut quick: Vec<_> = records().into_iter().map(|record| (record, true)).collect();
        let mode = CreateMode::Container;
        let container = Op::Create { path: path().into(), data: Bytes::new(), mode, acl: None };
        quick.push((record(container, &[], [1; 4]), true));
        quick.extend(slow);
        for (record, is_quick) in quick {
            let command = generated(&record).expect("valid");
            let written = encode(&command);
            assert_eq!(written.is_some(), is_quick, "{command:?}");
            let mut expected = BytesMut::new();
            crate::record::put_delimited(&mut expected, &command.to_record());
            assert_eq!(command.encode(), expected);
            assert_eq!(session_txn(&record).is_some(), is_quick);
        }
    }

    #[test]
    fn never_differs_from_the_generated_codec() {
        let mut taken = 0;
        for record in records() {
            for at in 0..record.len() {
                for bit in 0..8 {
                    let mut bytes = record.to_vec();
                    bytes[at] ^= 1 << bit;
                    let bytes = Bytes::from(bytes);
                    if let Some(command) = session_txn(&bytes) {
                        taken += 1;
                        assert_eq!(Some(command), generated(&bytes), "byte {at}, bit {bit}");
                    }
                }
                let cut = record.slice(..at);
                assert!(session_txn(&cut).is_none(), "a record that is cut off is none");
            }
        }
        assert!(taken > 1_000, "many flips give another valid record: {taken}");
    }
}
