//! Jute: the encoding of ZooKeeper's records. Big-endian numbers; texts, buffers and lists behind
//! their length, where -1 stands for none.
//!
//! Nothing is allocated but lists, and those never more than four times the bytes that came and
//! 1 MiB (`tests/allocation.rs`).

use thiserror::Error;

/// Why bytes are no record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum JuteError {
    /// They end within it.
    #[error("the record goes on after its last byte")]
    Short,
    /// More bytes follow it.
    #[error("{left} bytes follow the record")]
    Trailing {
        /// How many.
        left: usize,
    },
    /// A length is below -1, or longer than what follows.
    #[error("a length of {length}, and {left} bytes follow")]
    Length {
        /// What was said.
        length: i32,
        /// What is there.
        left: usize,
    },
    /// A text is not UTF-8.
    #[error("a text is not UTF-8")]
    Text,
    /// No such operation, or not here.
    #[error("no operation {0}")]
    Operation(i32),
    /// A list of operations does not end as it must.
    #[error("a list of operations without its end")]
    Unended,
    /// A multi has too many parts.
    #[error("a multi of more than {max} parts")]
    Parts {
        /// How many it may have.
        max: usize,
    },
}

/// Bytes of a record, read from the front.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], JuteError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(JuteError::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    /// One record.
    pub(crate) fn get<T: Jute<'a>>(&mut self) -> Result<T, JuteError> {
        T::read(self)
    }

    /// Nothing follows.
    pub(crate) fn end(&self) -> Result<(), JuteError> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(JuteError::Trailing { left }),
        }
    }

    /// A length, or `None` for -1. What it counts takes at least `each` bytes.
    fn length(&mut self, each: usize) -> Result<Option<usize>, JuteError> {
        let length: i32 = self.get()?;
        let left = self.rest.len();
        if length == -1 {
            return Ok(None);
        }
        match usize::try_from(length) {
            Ok(count) if count <= left / each => Ok(Some(count)),
            _ => Err(JuteError::Length { length, left }),
        }
    }

    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], JuteError> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(JuteError::Short)?;
        self.rest = rest;
        Ok(*bytes)
    }
}

/// What jute can say: the field of a record, or a record.
pub(crate) trait Jute<'a>: Sized {
    /// The fewest bytes that it takes.
    const BYTES_MIN: usize;

    fn read(from: &mut Reader<'a>) -> Result<Self, JuteError>;

    fn write(&self, out: &mut Vec<u8>);
}

impl Jute<'_> for i32 {
    const BYTES_MIN: usize = 4;

    fn read(from: &mut Reader<'_>) -> Result<Self, JuteError> {
        from.chunk().map(Self::from_be_bytes)
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_be_bytes());
    }
}

impl Jute<'_> for i64 {
    const BYTES_MIN: usize = 8;

    fn read(from: &mut Reader<'_>) -> Result<Self, JuteError> {
        from.chunk().map(Self::from_be_bytes)
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_be_bytes());
    }
}

impl Jute<'_> for bool {
    const BYTES_MIN: usize = 1;

    fn read(from: &mut Reader<'_>) -> Result<Self, JuteError> {
        Ok(from.take(1)?[0] != 0)
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.push((*self).into());
    }
}

/// A buffer; `None` is not the same as an empty one.
impl<'a> Jute<'a> for Option<&'a [u8]> {
    const BYTES_MIN: usize = 4;

    fn read(from: &mut Reader<'a>) -> Result<Self, JuteError> {
        match from.length(1)? {
            Some(length) => from.take(length).map(Some),
            None => Ok(None),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        write_bytes(*self, out);
    }
}

/// A text. None is read as an empty one, and never written.
impl<'a> Jute<'a> for &'a str {
    const BYTES_MIN: usize = 4;

    fn read(from: &mut Reader<'a>) -> Result<Self, JuteError> {
        let bytes: Option<&[u8]> = from.get()?;
        std::str::from_utf8(bytes.unwrap_or_default()).map_err(|_| JuteError::Text)
    }

    fn write(&self, out: &mut Vec<u8>) {
        write_bytes(Some(self.as_bytes()), out);
    }
}

/// A list. None is read as an empty one, and never written.
impl<'a, T: Jute<'a>> Jute<'a> for Vec<T> {
    const BYTES_MIN: usize = 4;

    fn read(from: &mut Reader<'a>) -> Result<Self, JuteError> {
        let count = from.length(T::BYTES_MIN)?.unwrap_or(0);
        let mut list = Self::with_capacity(count);
        for _ in 0..count {
            list.push(from.get()?);
        }
        Ok(list)
    }

    fn write(&self, out: &mut Vec<u8>) {
        write_length(self.len(), out);
        self.iter().for_each(|item| item.write(out));
    }
}

fn write_bytes(bytes: Option<&[u8]>, out: &mut Vec<u8>) {
    let Some(bytes) = bytes else {
        return (-1i32).write(out);
    };
    write_length(bytes.len(), out);
    out.extend_from_slice(bytes);
}

/// Longer things than a packet are not written: their length would not be read either.
fn write_length(length: usize, out: &mut Vec<u8>) {
    i32::try_from(length).unwrap_or(i32::MAX).write(out);
}

/// Records of jute: their fields, in order.
macro_rules! records {
    ($($(#[$doc:meta])* $name:ident$(<$life:lifetime>)? {
        $($(#[$field_doc:meta])* $field:ident: $type:ty,)*
    })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, PartialEq, Eq, Debug)]
            #[allow(clippy::exhaustive_structs, reason = "the protocol fixes its fields")]
            pub struct $name$(<$life>)? {
                $($(#[$field_doc])* pub $field: $type,)*
            }

            records!(@impl $name [$($life)?] $($field: $type,)*);
        )*
    };
    (@impl $name:ident [$life:lifetime] $($field:ident: $type:ty,)*) => {
        impl<$life> $crate::zookeeper::jute::Jute<$life> for $name<$life> {
            records!(@body $life $($field: $type,)*);
        }
    };
    (@impl $name:ident [] $($field:ident: $type:ty,)*) => {
        impl<'a> $crate::zookeeper::jute::Jute<'a> for $name {
            records!(@body 'a $($field: $type,)*);
        }
    };
    (@body $life:lifetime $($field:ident: $type:ty,)*) => {
        const BYTES_MIN: usize = 0
            $(+ <$type as $crate::zookeeper::jute::Jute<$life>>::BYTES_MIN)*;

        fn read(
            from: &mut $crate::zookeeper::jute::Reader<$life>,
        ) -> Result<Self, $crate::zookeeper::jute::JuteError> {
            Ok(Self { $($field: from.get()?,)* })
        }

        fn write(&self, out: &mut Vec<u8>) {
            $($crate::zookeeper::jute::Jute::write(&self.$field, out);)*
        }
    };
}

pub(crate) use records;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_that_lie_are_refused_before_anything_is_allocated() {
        let lists = [&[0x7f, 0xff, 0xff, 0xff][..], &[0, 0, 0, 2, 0, 0, 0, 0], &[0x80, 0, 0, 0]];
        for bytes in lists {
            let read = Reader::new(bytes).get::<Vec<&str>>();
            assert!(matches!(read, Err(JuteError::Length { .. })), "{read:?}");
        }
        let read = Reader::new(&[0, 0, 0, 5, 1, 2]).get::<Option<&[u8]>>();
        assert_eq!(read, Err(JuteError::Length { length: 5, left: 2 }));
        assert_eq!(Reader::new(&[0, 0, 0]).get::<i32>(), Err(JuteError::Short));
        assert_eq!(Reader::new(&[0, 0, 0, 1, 0xff]).get::<&str>(), Err(JuteError::Text));
    }

    #[test]
    fn none_is_not_empty_where_that_is_a_difference() {
        let mut out = Vec::new();
        None::<&[u8]>.write(&mut out);
        Some(&[][..]).write(&mut out);
        assert_eq!(out, [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
        let mut reader = Reader::new(&out);
        assert_eq!(reader.get::<Option<&[u8]>>(), Ok(None));
        assert_eq!(reader.get::<Option<&[u8]>>(), Ok(Some(&[][..])));
        assert_eq!(reader.end(), Ok(()));
        assert_eq!(Reader::new(&out).get::<Vec<&str>>(), Ok(Vec::new()));
        assert_eq!(Reader::new(&out).get::<&str>(), Ok(""));
    }
}
