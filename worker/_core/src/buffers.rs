//! numpy's arrays, borrowed for a call.

use std::cell::Cell;

use pyo3::buffer::{Element, PyBuffer, ReadOnlyCell};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

pub struct Array<T: Element>(PyBuffer<T>);

impl<'py, T: Element> FromPyObject<'py> for Array<T> {
    fn extract_bound(object: &Bound<'py, PyAny>) -> PyResult<Self> {
        Ok(Array(PyBuffer::get(object)?))
    }
}

impl<T: Element> Array<T> {
    /// The numbers, to be read. Errors where they do not lie side by side.
    pub fn shown<'a>(&'a self, py: Python<'a>) -> PyResult<&'a [ReadOnlyCell<T>]> {
        self.0.as_slice(py).ok_or_else(|| PyValueError::new_err("an array is not C-contiguous"))
    }

    /// The numbers, to be changed in place. Errors where they do not lie side by side or are not so many.
    pub fn cells<'a>(&'a self, py: Python<'a>, many: usize) -> PyResult<&'a [Cell<T>]> {
        let cells = self.0.as_mut_slice(py).ok_or_else(|| PyValueError::new_err("an array is not C-contiguous"))?;
        counted(cells, many)
    }

    pub fn copied(&self, py: Python<'_>) -> PyResult<Vec<T>> {
        self.0.to_vec(py)
    }
}

/// Errors where there are not so many.
pub fn counted<T>(numbers: &[T], many: usize) -> PyResult<&[T]> {
    match numbers.len() {
        found if found == many => Ok(numbers),
        found => Err(PyValueError::new_err(format!("an array has {found} numbers where {many} belong"))),
    }
}

/// Places as indexes below `end`.
pub fn places(py: Python<'_>, array: &Array<i64>, end: usize) -> PyResult<Vec<usize>> {
    let outside = |_| PyValueError::new_err("an index lies outside its array");
    let found: Result<Vec<usize>, _> = array.copied(py)?.into_iter().map(usize::try_from).collect();
    let found = found.map_err(outside)?;
    match found.iter().all(|&place| place < end) {
        true => Ok(found),
        false => Err(PyValueError::new_err("an index lies outside its array")),
    }
}
