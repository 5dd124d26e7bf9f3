//! The rows that record batches hold, by several threads at once where there are many: each takes batches that follow
//! each other, and what they find stands in the same order as if one had taken them all.

use std::collections::HashMap;
use std::thread::{Builder, scope};

use pyo3::pybacked::PyBackedBytes;

use crate::reading::Schema;
use crate::record::{self, Records};

const SHARE_BYTES: usize = 1 << 17; // of records, about, for a thread: less is done sooner than one begins

/// Partition, base offset, first timestamp, timestamp of all (log append time) or none, number of records, least
/// offset that counts, records.
pub type Batch = (i32, i64, i64, Option<i64>, i32, i64, PyBackedBytes);

/// A record that is no plain reading.
pub struct Left<'a> {
    pub batch: usize,
    pub offset: i64,
    pub timestamp_ms: i64,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: Vec<(&'a str, Option<&'a [u8]>)>,
}

/// Of batches that follow each other. Entities have codes of its own.
#[derive(Default)]
pub struct Rows<'a> {
    pub x_BF: Vec<f32>,
    pub timestamp_ms_B: Vec<i64>,
    pub offset_B: Vec<i64>,
    pub batch_B: Vec<i32>,
    pub entity_B: Vec<i32>,
    pub entities: Vec<(i32, &'a [u8])>,
    codes: HashMap<(i32, &'a [u8]), i32>,
    pub left: Vec<Left<'a>>,
    pub unread: Vec<usize>, // batches that are left whole
    pub value_bytes: u64,
}

/// Where rows stood before a batch.
struct Mark {
    rows: usize,
    entities: usize,
    left: usize,
    value_bytes: u64,
}

/// By at most so many threads, the calling one among them.
pub fn read<'a>(schema: &Schema, batches: &'a [Batch], threads: usize) -> Vec<Rows<'a>> {
    let mut shares = shares(batches, threads).into_iter();
    let first = shares.next();
    scope(|scope| {
        // Where no thread is to be had, the share is done here.
        let others: Vec<_> = shares
            .map(|share| Builder::new().spawn_scoped(scope, move || Rows::of(schema, share)).map_err(|_| share))
            .collect();
        let ours = first.map(|share| Rows::of(schema, share));
        let theirs = others.into_iter().map(|other| match other {
            Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(share) => Rows::of(schema, share),
        });
        ours.into_iter().chain(theirs).collect()
    })
}

/// The number of the first batch, and the batches; of about as many bytes each.
type Share<'a> = (usize, &'a [Batch]);

fn shares(batches: &[Batch], threads: usize) -> Vec<Share<'_>> {
    let bytes: usize = batches.iter().map(|batch| batch.6.len()).sum();
    let most = (bytes / SHARE_BYTES).clamp(1, threads.max(1));
    let each = bytes.div_ceil(most);
    let (mut shares, mut begin, mut held) = (Vec::new(), 0, 0);
    for (number, batch) in batches.iter().enumerate() {
        held += batch.6.len();
        if held >= each && shares.len() + 1 < most {
            shares.push((begin, &batches[begin..=number]));
            (begin, held) = (number + 1, 0);
        }
    }
    if begin < batches.len() {
        shares.push((begin, &batches[begin..]));
    }
    shares
}

impl<'a> Rows<'a> {
    fn of(schema: &Schema, (first, batches): Share<'a>) -> Self {
        let mut rows = Rows::default();
        for (number, batch) in (first..).zip(batches) {
            rows.add(schema, number, batch);
        }
        rows
    }

    fn add(&mut self, schema: &Schema, number: usize, batch: &'a Batch) {
        let mark = Mark {
            rows: self.offset_B.len(),
            entities: self.entities.len(),
            left: self.left.len(),
            value_bytes: self.value_bytes,
        };
        if self.add_records(schema, number, batch).is_none() {
            self.back_to(mark, schema.features());
            self.unread.push(number);
        }
    }

    /// None: something of it cannot be read.
    fn add_records(&mut self, schema: &Schema, number: usize, batch: &'a Batch) -> Option<()> {
        let (partition, base_offset, first_ms, append_ms, count, from_offset, data) = batch;
        let mut records = Records::of(data);
        for _ in 0..*count {
            let record = records.next()?;
            let offset = base_offset.checked_add(i64::from(i32::try_from(record.offset_delta).ok()?))?;
            if offset < *base_offset {
                return None;
            }
            let kafka_ms = match append_ms {
                Some(ms) => *ms,
                None => first_ms.checked_add(record.timestamp_delta)?,
            };
            if offset < *from_offset {
                continue;
            }
            self.value_bytes += record.value.map_or(0, <[u8]>::len) as u64;
            let start = self.x_BF.len();
            self.x_BF.resize(start + schema.features(), f32::NAN);
            if let Some(read) = schema.read(record.key, record.value, kafka_ms, &mut self.x_BF[start..]) {
                let code = self.code(*partition, read.entity)?;
                self.timestamp_ms_B.push(read.timestamp_ms);
                self.offset_B.push(offset);
                self.batch_B.push(i32::try_from(number).ok()?);
                self.entity_B.push(code);
                continue;
            }
            self.x_BF.truncate(start);
            let (many, mut body) = record.headers;
            let headers = (0..many).map(|_| record::header(&mut body)).collect::<Option<_>>()?;
            self.left.push(Left {
                batch: number,
                offset,
                timestamp_ms: kafka_ms,
                key: record.key,
                value: record.value,
                headers,
            });
        }
        records.is_empty().then_some(())
    }

    fn code(&mut self, partition: i32, entity: &'a [u8]) -> Option<i32> {
        let next = i32::try_from(self.entities.len()).ok()?;
        let code = *self.codes.entry((partition, entity)).or_insert(next);
        if code == next {
            self.entities.push((partition, entity));
        }
        Some(code)
    }

    fn back_to(&mut self, mark: Mark, features: usize) {
        self.x_BF.truncate(mark.rows * features);
        self.timestamp_ms_B.truncate(mark.rows);
        self.offset_B.truncate(mark.rows);
        self.batch_B.truncate(mark.rows);
        self.entity_B.truncate(mark.rows);
        for entity in self.entities.drain(mark.entities..) {
            self.codes.remove(&entity);
        }
        self.left.truncate(mark.left);
        self.value_bytes = mark.value_bytes;
    }
}
