//! Kafka record batches → columns, with Python's lock released: the compiled twin of worker/codec/columns.py; what
//! scoring does row by row (windows, scaling, residuals, chart, alarm, faults of sensors, the time of streams); and how
//! an event says numbers. Each is the twin of a part of worker/.
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
mod numbers;
mod reading;
mod record;
mod residuals;
mod rows;
mod sensors;
mod silence;
mod stamp;
mod sums;
mod visits;
mod windows;

use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes};

use reading::{Bounds, Schema};
use rows::Batch;

/// Number of its batch, offset, timestamp, key, value, headers.
type PyLeft = (usize, i64, i64, Option<Py<PyBytes>>, Option<Py<PyBytes>>, Vec<(String, Option<Py<PyBytes>>)>);

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

    /// threads: how many may be at it.
    fn decode(&self, py: Python<'_>, batches: Vec<Batch>, threads: usize) -> PyResult<Columns> {
        let parts = py.detach(|| rows::read(&self.schema, &batches, threads));
        let bytes = |slice: &[u8]| PyBytes::new(py, slice).unbind();
        let mut before = 0; // entities of the parts before
        let entity_B: Vec<i32> = parts
            .iter()
            .flat_map(|rows| {
                let first = before;
                before += rows.entities.len() as i32;
                rows.entity_B.iter().map(move |code| first + code)
            })
            .collect();
        Ok(Columns {
            x_BF: column(py, &parts, |rows| &rows.x_BF, f32::to_ne_bytes)?,
            timestamp_ms_B: column(py, &parts, |rows| &rows.timestamp_ms_B, i64::to_ne_bytes)?,
            offset_B: column(py, &parts, |rows| &rows.offset_B, i64::to_ne_bytes)?,
            batch_B: column(py, &parts, |rows| &rows.batch_B, i32::to_ne_bytes)?,
            entity_B: column(py, &[entity_B], |codes| codes, i32::to_ne_bytes)?,
            entities: parts
                .iter()
                .flat_map(|rows| &rows.entities)
                .map(|(partition, name)| (*partition, String::from_utf8_lossy(name).into_owned()))
                .collect(),
            left: parts
                .iter()
                .flat_map(|rows| &rows.left)
                .map(|left| {
                    let headers = left.headers.iter().map(|(name, value)| ((*name).to_owned(), value.map(bytes)));
                    let (key, value) = (left.key.map(bytes), left.value.map(bytes));
                    (left.batch, left.offset, left.timestamp_ms, key, value, headers.collect())
                })
                .collect(),
            unread: parts.iter().flat_map(|rows| &rows.unread).copied().collect(),
            value_bytes: parts.iter().map(|rows| rows.value_bytes).sum(),
        })
    }
}

/// Numbers of all parts as they lie in memory.
fn column<P, T: Copy, const N: usize>(
    py: Python<'_>, parts: &[P], of: impl Fn(&P) -> &Vec<T>, bytes: impl Fn(T) -> [u8; N],
) -> PyResult<Py<PyByteArray>> {
    let length: usize = parts.iter().map(|part| of(part).len()).sum();
    let made = PyByteArray::new_with(py, length * N, |memory| {
        let mut places = memory.chunks_exact_mut(N);
        for part in parts {
            for (value, place) in of(part).iter().zip(places.by_ref()) {
                place.copy_from_slice(&bytes(*value));
            }
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
    module.add_function(wrap_pyfunction!(numbers::shortest, module)?)?;
    module.add_function(wrap_pyfunction!(residuals::compare, module)?)?;
    module.add_function(wrap_pyfunction!(residuals::mean_square, module)?)?;
    module.add_function(wrap_pyfunction!(silence::pass_time, module)?)?;
    module.add_function(wrap_pyfunction!(windows::gather, module)?)?;
    module.add_function(wrap_pyfunction!(windows::scale, module)?)
}
