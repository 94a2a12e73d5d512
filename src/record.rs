//! Records one after the other in a byte string, each behind its length.

use bytes::BufMut;
use prost::encoding::encode_varint;

/// Appends `record` behind its length.
pub(crate) fn put_delimited(out: &mut impl BufMut, record: &impl prost::Message) {
    encode_varint(record.encoded_len() as u64, out);
    record.encode_raw(out);
}
