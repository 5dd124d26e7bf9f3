//! Kafka record batches → columns, with Python's lock released: the compiled twin of worker/codec/columns.py; and what
//! scoring does row by row (windows, scaling, chart, alarm, faults of sensors), each the
//! twin of a module of worker/detection or worker/faults.
//!
//! Bytes in, columns out. What is not a plain reading is handed back as it came, for the twin to read or to refuse:
//! so there is one place that says what a reading is, and this one is only fast.
//!
//! Legend: F features, B readings.
#![allow(non_snake_case)]
#![forbid(unsafe_code)]

mod alarm;
mod buffers;
mod chart;
mod json;
mod reading;
mod record;
mod sensors;
mod stamp;
mod sums;
mod visits;
mod windows;

use std::collections::HashMap;

use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyByteArray, PyBytes};

use reading::{Bounds, Schema};
use record::Records;

/// Partition, base offset, first timestamp, timestamp of all (log append time) or none, number of records, least
/// offset that counts, records.
type PyBatch = (i32, i64, i64, Option<i64>, i32, i64, PyBackedBytes);

/// Rows before it, number of its batch, offset, timestamp, key, value, headers.
type PyLeft = (usize, usize, i64, i64, Option<Py<PyBytes>>, Option<Py<PyBytes>>, Vec<(String, Option<Py<PyBytes>>)>);

struct Left<'a> {
    at: usize,
    batch: usize,
    offset: i64,
    timestamp_ms: i64,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    headers: Vec<(&'a str, Option<&'a [u8]>)>,
}

#[derive(Default)]
struct Rows<'a> {
    x_BF: Vec<f32>,
    timestamp_ms_B: Vec<i64>,
    offset_B: Vec<i64>,
    batch_B: Vec<i32>,
    entity_B: Vec<i32>,
    entities: Vec<(i32, &'a [u8])>,
    codes: HashMap<(i32, &'a [u8]), i32>,
    left: Vec<Left<'a>>,
    value_bytes: u64,
}

/// Where rows stood before a batch.
struct Mark {
    rows: usize,
    entities: usize,
    left: usize,
    value_bytes: u64,
}

impl<'a> Rows<'a> {
    /// None: the batch is left whole, and nothing of it is here.
    fn add(&mut self, schema: &Schema, number: usize, batch: &'a PyBatch) -> Option<()> {
        let mark = Mark {
            rows: self.offset_B.len(),
            entities: self.entities.len(),
            left: self.left.len(),
            value_bytes: self.value_bytes,
        };
        let added = self.add_records(schema, number, batch);
        if added.is_none() {
            self.back_to(mark, schema.features());
        }
        added
    }

    fn add_records(&mut self, schema: &Schema, number: usize, batch: &'a PyBatch) -> Option<()> {
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
                at: self.offset_B.len(),
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

/// What came of a list of batches; columns as bytes in this machine's order, for numpy.
#[pyclass(frozen, get_all)]
struct Columns {
    x_BF: Py<PyByteArray>,
    timestamp_ms_B: Py<PyByteArray>,
    offset_B: Py<PyByteArray>,
    batch_B: Py<PyByteArray>,
    entity_B: Py<PyByteArray>,
    entities: Vec<(i32, String)>,
    left: Vec<PyLeft>,
    unread: Vec<usize>,
    value_bytes: u64,
}

#[pyclass(frozen)]
struct Decoder {
    schema: Schema,
}

#[pymethods]
impl Decoder {
    #[new]
    #[pyo3(signature = (
        features, values_field, entity_field, timestamp_field, max_record_bytes, max_depth = 32, max_fields = 10_000
    ))]
    fn new(
        features: Vec<String>,
        values_field: String,
        entity_field: Option<String>,
        timestamp_field: Option<String>,
        max_record_bytes: usize,
        max_depth: usize,
        max_fields: usize,
    ) -> Self {
        let bounds = Bounds { record_bytes: max_record_bytes, depth: max_depth, fields: max_fields };
        Decoder { schema: Schema::new(features, values_field, entity_field, timestamp_field, bounds) }
    }

    fn decode(&self, py: Python<'_>, batches: Vec<PyBatch>) -> PyResult<Columns> {
        let (rows, unread) = py.detach(|| {
            let mut rows = Rows::default();
            let unread: Vec<usize> = batches
                .iter()
                .enumerate()
                .filter_map(|(number, batch)| rows.add(&self.schema, number, batch).is_none().then_some(number))
                .collect();
            (rows, unread)
        });
        let bytes = |slice: &[u8]| PyBytes::new(py, slice).unbind();
        Ok(Columns {
            x_BF: column(py, &rows.x_BF, f32::to_ne_bytes)?,
            timestamp_ms_B: column(py, &rows.timestamp_ms_B, i64::to_ne_bytes)?,
            offset_B: column(py, &rows.offset_B, i64::to_ne_bytes)?,
            batch_B: column(py, &rows.batch_B, i32::to_ne_bytes)?,
            entity_B: column(py, &rows.entity_B, i32::to_ne_bytes)?,
            entities: rows
                .entities
                .iter()
                .map(|(partition, name)| (*partition, String::from_utf8_lossy(name).into_owned()))
                .collect(),
            left: rows
                .left
                .iter()
                .map(|left| {
                    let headers = left.headers.iter().map(|(name, value)| ((*name).to_owned(), value.map(bytes)));
                    let (key, value) = (left.key.map(bytes), left.value.map(bytes));
                    (left.at, left.batch, left.offset, left.timestamp_ms, key, value, headers.collect())
                })
                .collect(),
            unread,
            value_bytes: rows.value_bytes,
        })
    }
}

/// Numbers as they lie in memory.
fn column<T: Copy, const N: usize>(
    py: Python<'_>, values: &[T], bytes: impl Fn(T) -> [u8; N],
) -> PyResult<Py<PyByteArray>> {
    let made = PyByteArray::new_with(py, values.len() * N, |memory| {
        for (place, value) in memory.chunks_exact_mut(N).zip(values) {
            place.copy_from_slice(&bytes(*value));
        }
        Ok(())
    })?;
    Ok(made.unbind())
}

#[pymodule]
fn columns(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Decoder>()?;
    module.add_class::<chart::Chart>()?;
    module.add_class::<alarm::Alarm>()?;
    module.add_class::<sensors::Sensors>()?;
    module.add_function(wrap_pyfunction!(windows::gather, module)?)?;
    module.add_function(wrap_pyfunction!(windows::scale, module)?)
}
