//! Rows by entity, see worker/state/visits.py. Legend: B rows, E entities.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::buffers::{places, Array};

pub struct Visits {
    pub order_B: Vec<usize>,
    start_E: Vec<usize>,
    count_E: Vec<usize>,
}

impl Visits {
    pub fn of(py: Python<'_>, order_B: &Array<i64>, start_E: &Array<i64>, count_E: &Array<i64>) -> PyResult<Self> {
        let rows = order_B.copied(py)?.len();
        let visits = Visits {
            order_B: places(py, order_B, rows)?,
            start_E: places(py, start_E, rows)?,
            count_E: places(py, count_E, rows + 1)?,
        };
        let within = visits.start_E.iter().zip(&visits.count_E).all(|(start, count)| start + count <= rows);
        if within && visits.start_E.len() == visits.count_E.len() {
            Ok(visits)
        } else {
            Err(PyValueError::new_err("entities' rows lie outside the batch"))
        }
    }

    pub fn entities(&self) -> usize {
        self.start_E.len()
    }

    /// Entities in the order in which their rows lie in order_B.
    pub fn by_place(&self) -> Vec<usize> {
        let mut entities: Vec<usize> = (0..self.entities()).collect();
        entities.sort_unstable_by_key(|&entity| self.start_E[entity]);
        entities
    }

    /// Each entity's rows in order of arrival.
    pub fn rows_of(&self, entity: usize) -> &[usize] {
        &self.order_B[self.start_E[entity]..self.start_E[entity] + self.count_E[entity]]
    }
}
