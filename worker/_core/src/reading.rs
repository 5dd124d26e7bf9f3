//! One reading: a JSON object → a row of float32, its entity and its timestamp. See worker/codec/readings.py, whose
//! plain cases these are; every other one is `None` and left to it.

use std::collections::HashMap;
use std::iter::repeat;

use crate::json::{Json, Number};
use crate::stamp;

const MAX_ENTITY_BYTES: usize = 512; // at most so many characters too
const UNKEYED: &[u8] = b"unkeyed";

/// Beyond them the twin refuses; here it is enough never to take what lies beyond.
pub struct Bounds {
    pub record_bytes: usize,
    /// Of brackets, the reading's own counted.
    pub depth: usize,
    pub fields: usize,
}

impl Bounds {
    /// A text has no more fields than bytes: those of a plain reading need no count.
    fn hold(&self, value: &[u8]) -> bool {
        value.len() <= self.record_bytes
            && (value.len() <= self.fields
                || value.chunks(255).map(beginnings).sum::<usize>() <= self.fields)
    }
}

/// How many fields begin in at most 255 bytes, which is as many as the sum of them holds; many bytes at a time.
fn beginnings(bytes: &[u8]) -> usize {
    let begins = |byte: &u8| u8::from(matches!(byte, b',' | b'[' | b'{'));
    usize::from(bytes.iter().map(begins).fold(0_u8, u8::wrapping_add))
}

pub struct Schema {
    features: Vec<Vec<u8>>,
    plain: bool, // no name of a feature needs escapes
    leads: Vec<Vec<u8>>, // how each is mostly written: "name":
    places: HashMap<Vec<u8>, usize>,
    values_field: Vec<u8>,
    entity_field: Option<Vec<u8>>,
    timestamp_field: Option<Vec<u8>>,
    bounds: Bounds,
}

pub struct Reading<'a> {
    pub entity: &'a [u8],
    pub timestamp_ms: i64,
}

enum Stamp {
    Absent,
    At(i64),
}

impl Schema {
    pub fn new(
        features: Vec<String>,
        values_field: String,
        entity_field: Option<String>,
        timestamp_field: Option<String>,
        bounds: Bounds,
    ) -> Self {
        let features: Vec<Vec<u8>> = features.into_iter().map(String::into_bytes).collect();
        Schema {
            places: features.iter().cloned().enumerate().map(|(i, name)| (name, i)).collect(),
            plain: features.iter().flatten().all(|&byte| byte >= 0x20 && byte != b'"' && byte != b'\\'),
            leads: features.iter().map(|name| [b"\"", &name[..], b"\":"].concat()).collect(),
            features,
            values_field: values_field.into_bytes(),
            entity_field: entity_field.map(String::into_bytes),
            timestamp_field: timestamp_field.map(String::into_bytes),
            bounds,
        }
    }

    pub fn features(&self) -> usize {
        self.features.len()
    }

    /// row_F is NaN throughout at first; where the reading is left to the twin it may hold anything.
    pub fn read<'a>(
        &self,
        key: Option<&'a [u8]>,
        value: Option<&'a [u8]>,
        kafka_ms: i64,
        row_F: &mut [f32],
    ) -> Option<Reading<'a>> {
        let value = value.filter(|value| value.first().is_some_and(u8::is_ascii))?; // an Arrow stream is not
        if !self.bounds.hold(value) || !(value.is_ascii() || std::str::from_utf8(value).is_ok()) {
            return None;
        }
        let mut json = Json::of(value, self.bounds.depth);
        let (mut entity, mut stamp) = (None, Stamp::Absent);
        let (mut named, mut listed) = (false, false);
        let mut expected = 0;
        json.take(b'{')?;
        if json.next_token()? == b'}' {
            return None;
        }
        loop {
            // Most readings name the features in the model's order.
            json.next_token()?;
            if self.plain && !listed {
                let leads = self.leads[expected..].iter().map(|lead| &lead[..]);
                let many = json.run(leads, &mut row_F[expected..]);
                named |= many > 0;
                expected += many;
                json.next_token()?;
            }
            if let Some(next) = self.features.get(expected).filter(|_| self.plain) {
                let led = json.word(&self.leads[expected]).is_some();
                if led || json.is_string(next) {
                    if !led {
                        json.take(b':')?;
                    }
                    json.next_token()?;
                    let value = feature(&mut json)?;
                    if !listed {
                        row_F[expected] = value;
                        named |= !value.is_nan();
                    }
                    expected += 1;
                    match json.next_token()? {
                        b',' => json.take(b',')?,
                        b'}' => break,
                        _ => return None,
                    }
                    continue;
                }
            }
            let name = json.plain_string()?;
            json.take(b':')?;
            let token = json.next_token()?;
            let place = if self.timestamp_field.as_deref() == Some(name) {
                stamp = if token == b'n' { json.word(b"null").map(|()| Stamp::Absent)? } else { timestamp(&mut json)? };
                None
            } else if self.entity_field.as_deref() == Some(name) {
                entity = Some(entity_of(&mut json)?);
                None
            } else if self.values_field == name {
                if listed {
                    return None; // the last of two counts
                }
                if token == b'n' {
                    json.word(b"null")?;
                } else if named {
                    return None;
                } else {
                    list(&mut json, row_F)?;
                    listed = true;
                }
                None
            } else {
                let place = self.places.get(name).copied();
                if place.is_none() {
                    json.skip(2)?;
                }
                place
            };
            if let Some(f) = place {
                expected = f + 1;
                let value = feature(&mut json)?;
                if !listed {
                    row_F[f] = value;
                    named |= !value.is_nan();
                }
            }
            match json.next_token()? {
                b',' => json.take(b',')?,
                b'}' => break,
                _ => return None,
            }
        }
        json.take(b'}')?;
        if !json.at_end() || !(named || listed) {
            return None;
        }
        let timestamp_ms = match stamp {
            Stamp::At(ms) => ms,
            Stamp::Absent => stamp::in_range(kafka_ms.max(0))?,
        };
        let entity = match (&self.entity_field, key) {
            (Some(_), _) => entity?,
            (None, None | Some([])) => UNKEYED,
            (None, Some(key)) => {
                if key.len() > MAX_ENTITY_BYTES || std::str::from_utf8(key).is_err() {
                    return None;
                }
                key
            }
        };
        Some(Reading { entity, timestamp_ms })
    }
}

/// An array of exactly as many numbers as the row has.
fn list(json: &mut Json, row_F: &mut [f32]) -> Option<()> {
    if json.next_token()? != b'[' {
        return None;
    }
    json.enter(2)?;
    let most = row_F.len().saturating_sub(1); // a comma follows each of them
    let done = json.run(repeat(&[][..]), &mut row_F[..most]);
    for (f, place) in row_F.iter_mut().enumerate().skip(done) {
        if f > done {
            json.take(b',')?;
        }
        json.next_token()?;
        *place = feature(json)?;
    }
    json.take(b']')
}

/// A number that fits a float32, a boolean, or null, which is NaN.
#[inline]
fn feature(json: &mut Json) -> Option<f32> {
    match json.peek()? {
        b'n' => json.word(b"null").map(|()| f32::NAN),
        b't' => json.word(b"true").map(|()| 1.0),
        b'f' => json.word(b"false").map(|()| 0.0),
        _ => {
            let Number { value, .. } = json.number()?;
            (value.abs() <= f64::from(f32::MAX)).then_some(value as f32)
        }
    }
}

fn timestamp(json: &mut Json) -> Option<Stamp> {
    let ms = match json.peek()? {
        b'"' => stamp::of_text(json.plain_string()?)?,
        _ => match json.number()? {
            Number { integer: Some(digits), .. } => {
                stamp::of_integer(std::str::from_utf8(digits).ok()?.parse().ok()?)?
            }
            Number { value, .. } => stamp::of_float(value)?,
        },
    };
    Some(Stamp::At(ms))
}

/// A name, or an integer that stands for itself.
fn entity_of<'a>(json: &mut Json<'a>) -> Option<&'a [u8]> {
    let name = match json.peek()? {
        b'"' => json.plain_string()?,
        _ => json.number()?.integer?,
    };
    (!name.is_empty() && name.len() <= MAX_ENTITY_BYTES).then_some(name)
}
