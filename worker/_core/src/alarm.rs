//! The twin of Alarm._in_python in worker/detection/alarm.py: the same operations in the same order, so the same bits.
//!
//! Legend: B rows, E entities.

use pyo3::prelude::*;

use crate::buffers::Array;
use crate::visits::Visits;

#[pyclass(frozen)]
pub struct Alarm {
    threshold: f64,
    up: f64,
    down: f64,
    clear_share: f64,
    again_factor: f64,
    least: f64,
    most: f64,
    freeze_after: i64,
    barely: f64,
}

#[pymethods]
impl Alarm {
    #[new]
    #[allow(clippy::too_many_arguments)]
    #[pyo3(signature = (*, threshold, up, down, clear_share, again_factor, least, most, freeze_after, barely))]
    fn new(
        threshold: f64,
        up: f64,
        down: f64,
        clear_share: f64,
        again_factor: f64,
        least: f64,
        most: f64,
        freeze_after: i64,
        barely: f64,
    ) -> Self {
        Alarm { threshold, up, down, clear_share, again_factor, least, most, freeze_after, barely }
    }

    /// score_B and factor_B are filled; the memory moves on.
    fn update(
        &self,
        py: Python<'_>,
        visits: (Array<i64>, Array<i64>, Array<i64>),
        raw_B: Array<f64>,
        judged_B: Array<u8>,
        score_B: Array<f64>,
        factor_B: Array<f64>,
        memory: (Array<f64>, Array<u8>, Array<u8>, Array<f64>, Array<f64>, Array<i32>),
    ) -> PyResult<()> {
        let visits = Visits::of(py, &visits.0, &visits.1, &visits.2)?;
        let (rows, entities) = (visits.order_B.len(), visits.entities());
        let raw_B = raw_B.cells(py, rows)?;
        let judged_B = judged_B.cells(py, rows)?;
        let score_B = score_B.cells(py, rows)?;
        let factor_B = factor_B.cells(py, rows)?;
        let factor_E = memory.0.cells(py, entities)?;
        let on_E = memory.1.cells(py, entities)?;
        let spent_E = memory.2.cells(py, entities)?;
        let peak_E = memory.3.cells(py, entities)?;
        let trough_E = memory.4.cells(py, entities)?;
        let rows_E = memory.5.cells(py, entities)?;
        for entity in 0..entities {
            for &row in visits.rows_of(entity) {
                let (raw, factor) = (raw_B[row].get(), factor_E[entity].get());
                factor_B[row].set(factor);
                if judged_B[row].get() == 0 {
                    score_B[row].set(0.0);
                    continue;
                }
                let (was_on, was_spent) = (on_E[entity].get() != 0, spent_E[entity].get() != 0);
                let threshold = self.threshold * factor;
                let over = raw > threshold;
                let peak = peak_E[entity].get().max(raw);
                let cleared = raw <= self.clear_share * peak || raw <= threshold.max(1.0).sqrt();
                let ends = was_on && cleared;
                let trough = trough_E[entity].get().min(raw);
                let spent = was_spent && over && raw <= self.again_factor * trough;
                let begins = !was_on && !spent && over;
                let on = (was_on && !ends) || begins;
                let count = if on { rows_E[entity].get().saturating_add(1) } else { 0 };
                if i64::from(count) <= self.freeze_after {
                    factor_E[entity].set((factor * if on { self.up } else { self.down }).max(self.least).min(self.most));
                }
                on_E[entity].set(on.into());
                spent_E[entity].set((ends || (spent && !was_on)).into());
                peak_E[entity].set(if begins { raw } else { peak });
                trough_E[entity].set(if ends { raw } else { trough });
                rows_E[entity].set(count);
                let score = raw / threshold;
                score_B[row].set(if on { score.max(1.0 + self.barely) } else { score.min(1.0) });
            }
        }
        Ok(())
    }
}
