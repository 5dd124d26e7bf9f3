//! The records of a v2 record batch, after its header and out of its codec.
//!
//! Record: length, attributes, timestamp delta, offset delta, key, value, headers; all numbers zigzag varints
//! (Kafka protocol, "Record"). Whatever is not exactly so is `None`: the caller leaves the batch to its twin, which
//! says what is wrong.

pub struct Record<'a> {
    pub timestamp_delta: i64,
    pub offset_delta: i64,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    /// Number of headers, and where they begin.
    pub headers: (usize, &'a [u8]),
}

pub struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Records<'a> {
    pub fn of(data: &'a [u8]) -> Self {
        Records { rest: data }
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub fn next(&mut self) -> Option<Record<'a>> {
        let length = usize::try_from(varint(&mut self.rest)?).ok()?;
        let (mut body, rest) = split(self.rest, length)?;
        self.rest = rest;
        varint(&mut body)?; // attributes: none are used
        let timestamp_delta = varint(&mut body)?;
        let offset_delta = varint(&mut body)?;
        let key = bytes(&mut body)?;
        let value = bytes(&mut body)?;
        let count = usize::try_from(varint(&mut body)?).ok()?;
        let headers = (count, body);
        for _ in 0..count {
            header(&mut body)?;
        }
        body.is_empty().then_some(Record { timestamp_delta, offset_delta, key, value, headers })
    }
}

/// A header's name and value; the name is UTF-8.
pub fn header<'a>(body: &mut &'a [u8]) -> Option<(&'a str, Option<&'a [u8]>)> {
    let name = std::str::from_utf8(bytes(body)??).ok()?;
    Some((name, bytes(body)?))
}

/// Length and bytes; a negative length is null.
fn bytes<'a>(from: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let length = varint(from)?;
    if length < 0 {
        return Some(None);
    }
    let (taken, rest) = split(from, usize::try_from(length).ok()?)?;
    *from = rest;
    Some(Some(taken))
}

fn varint(from: &mut &[u8]) -> Option<i64> {
    let mut bits: u64 = 0;
    for (i, &byte) in from.iter().enumerate().take(10) {
        if i == 9 && byte > 1 {
            return None; // does not fit 64 bits
        }
        bits |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            *from = &from[i + 1..];
            return Some((bits >> 1) as i64 ^ -((bits & 1) as i64));
        }
    }
    None
}

fn split(from: &[u8], at: usize) -> Option<(&[u8], &[u8])> {
    (at <= from.len()).then(|| from.split_at(at))
}
