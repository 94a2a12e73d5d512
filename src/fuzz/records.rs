//! Changes of protobuf records that keep them records: any field of any message, at any depth.

use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};

use super::input::Input;

/// A field as it stands on the wire.
#[derive(Clone, Debug)]
enum Value {
    Number(u64),
    Long([u8; 8]),
    Short([u8; 4]),
    Bytes(Vec<u8>),
}

/// A record with one field changed, added, removed or repeated; `near` are numbers that mean
/// something to whoever reads it.
pub(super) fn mutated(record: &[u8], near: &[u64], input: &mut Input) -> Vec<u8> {
    deeper(record, near, input, 0)
}

fn deeper(record: &[u8], near: &[u64], input: &mut Input, depth: usize) -> Vec<u8> {
    let Some(mut fields) = fields(record).filter(|_| depth < DEPTH_MAX) else {
        return scrambled(record, input);
    };
    let choice = input.byte();
    let at = usize::from(choice >> 3) % fields.len().max(1);
    match choice % 8 {
        0 if !fields.is_empty() => drop(fields.remove(at)),
        1 if !fields.is_empty() => fields.push(fields[at].clone()),
        2 | 3 => {
            let (tag, number) = (1 + u32::from(choice >> 3) % TAGS, input.number(near));
            match fields.iter_mut().find(|field| field.0 == tag) {
                Some(field) => field.1 = Value::Number(number),
                None => fields.push((tag, Value::Number(number))),
            }
        }
        _ => match fields.get_mut(at).map(|field| &mut field.1) {
            Some(Value::Number(it)) => *it = input.number(&[&[*it], near].concat()),
            Some(Value::Long(it)) => *it = input.number(near).to_le_bytes(),
            Some(Value::Short(it)) => it[input.below(4)] ^= input.byte(),
            Some(Value::Bytes(it)) => *it = inside(it, near, input, depth),
            None => return scrambled(record, input),
        },
    }
    encoded(&fields)
}

/// Bytes are a record, records behind their lengths, or anything.
fn inside(bytes: &[u8], near: &[u64], input: &mut Input, depth: usize) -> Vec<u8> {
    match input.below(3) {
        0 => deeper(bytes, near, input, depth + 1),
        1 => match delimited(bytes) {
            Some(mut records) if !records.is_empty() => {
                let at = input.below(records.len());
                match input.below(5) {
                    0 => drop(records.remove(at)),
                    1 => records.push(records[at].clone()),
                    2 => records.reverse(),
                    _ => records[at] = deeper(&records[at], near, input, depth + 1),
                }
                let mut out = Vec::new();
                for record in &records {
                    encode_varint(record.len() as u64, &mut out);
                    out.extend_from_slice(record);
                }
                out
            }
            _ => scrambled(bytes, input),
        },
        _ => scrambled(bytes, input),
    }
}

fn scrambled(bytes: &[u8], input: &mut Input) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let at = usize::from(input.short()) % (bytes.len() + 1);
    match input.below(4) {
        0 => bytes.truncate(at),
        1 => bytes.insert(at, input.byte()),
        2 => bytes.extend_from_slice(&input.bytes(40)),
        _ => bytes.iter_mut().skip(at).take(1).for_each(|it| *it = input.byte()),
    }
    bytes
}

fn fields(mut record: &[u8]) -> Option<Vec<(u32, Value)>> {
    let mut fields = Vec::new();
    while !record.is_empty() {
        let (tag, wire) = decode_key(&mut record).ok()?;
        let value = match wire {
            WireType::Varint => Value::Number(decode_varint(&mut record).ok()?),
            WireType::SixtyFourBit => Value::Long(first(&mut record)?),
            WireType::ThirtyTwoBit => Value::Short(first(&mut record)?),
            WireType::LengthDelimited => Value::Bytes(split_record(&mut record)?),
            _ => return None,
        };
        fields.push((tag, value));
    }
    Some(fields)
}

fn encoded(fields: &[(u32, Value)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (tag, value) in fields {
        match value {
            Value::Number(it) => {
                encode_key(*tag, WireType::Varint, &mut out);
                encode_varint(*it, &mut out);
            }
            Value::Long(it) => {
                encode_key(*tag, WireType::SixtyFourBit, &mut out);
                out.extend_from_slice(it);
            }
            Value::Short(it) => {
                encode_key(*tag, WireType::ThirtyTwoBit, &mut out);
                out.extend_from_slice(it);
            }
            Value::Bytes(it) => {
                encode_key(*tag, WireType::LengthDelimited, &mut out);
                encode_varint(it.len() as u64, &mut out);
                out.extend_from_slice(it);
            }
        }
    }
    out
}

fn delimited(mut bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        records.push(split_record(&mut bytes)?);
    }
    Some(records)
}

fn first<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}

fn split_record(bytes: &mut &[u8]) -> Option<Vec<u8>> {
    let length = usize::try_from(decode_varint(bytes).ok()?).ok()?;
    let (record, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(record.to_vec())
}

const DEPTH_MAX: usize = 4;
/// The highest number of a field that is worth trying.
const TAGS: u32 = 14;
