//! The twin of Chart._rounds in worker/detection/chart.py: the same operations in the same order, so the same bits.
//!
//! Legend: B rows, E entities, F features.

use pyo3::prelude::*;

use crate::buffers::Array;
use crate::visits::Visits;

#[pyclass(frozen)]
pub struct Chart {
    fast_weight: f64,
    slow_share: f64,
    mean_weight: f64,
    slow_weight: f64,
    baseline_weight: f64,
    gate: f64,
    gate_by_mean: bool,
    accept_after: Option<i32>,
    mean_scale_F: Vec<f64>,
}

#[pymethods]
impl Chart {
    #[new]
    #[allow(clippy::too_many_arguments)]
    #[pyo3(signature = (
        *, fast_weight, slow_share, mean_weight, slow_weight, baseline_weight, gate, gate_by_mean, accept_after,
        mean_scale_F
    ))]
    fn new(
        fast_weight: f64,
        slow_share: f64,
        mean_weight: f64,
        slow_weight: f64,
        baseline_weight: f64,
        gate: f64,
        gate_by_mean: bool,
        accept_after: Option<i32>,
        mean_scale_F: Vec<f64>,
    ) -> Self {
        Chart {
            fast_weight, slow_share, mean_weight, slow_weight, baseline_weight, gate, gate_by_mean, accept_after,
            mean_scale_F,
        }
    }

    /// Residuals in deviation_BF become deviations; feature_BF and mean_BF are filled; the memory moves on.
    #[allow(clippy::too_many_arguments)]
    fn update(
        &self,
        py: Python<'_>,
        visits: (Array<i64>, Array<i64>, Array<i64>),
        deviation_BF: Array<f64>,
        present_BF: Array<u8>,
        feature_BF: Array<f64>,
        mean_BF: Option<Array<f64>>,
        memory: (Array<f64>, Array<f64>, Array<f64>, Array<f64>, Array<i32>),
    ) -> PyResult<()> {
        let visits = Visits::of(py, &visits.0, &visits.1, &visits.2)?;
        let features = self.mean_scale_F.len();
        let (of_rows, of_entities) = (visits.order_B.len() * features, visits.entities() * features);
        let deviation_BF = deviation_BF.cells(py, of_rows)?;
        let present_BF = present_BF.cells(py, of_rows)?;
        let feature_BF = feature_BF.cells(py, of_rows)?;
        let mean_BF = mean_BF.as_ref().map(|mean_BF| mean_BF.cells(py, of_rows)).transpose()?;
        let baseline_EF = memory.0.cells(py, of_entities)?;
        let mean_EF = memory.1.cells(py, of_entities)?;
        let fast_EF = memory.2.cells(py, of_entities)?;
        let slow_EF = memory.3.cells(py, of_entities)?;
        let out_EF = memory.4.cells(py, of_entities)?;
        let follows_mean = self.slow_share > 0.0 || self.gate_by_mean;
        for entity in 0..visits.entities() {
            for &row in visits.rows_of(entity) {
                for f in 0..features {
                    let (at, cell) = (row * features + f, entity * features + f);
                    let (baseline, mean, fast, out) = (&baseline_EF[cell], &mean_EF[cell], &fast_EF[cell], &out_EF[cell]);
                    let present = present_BF[at].get() != 0;
                    let moved = |by: f64| if present { by } else { 0.0 };
                    let d = deviation_BF[at].get() - baseline.get();
                    let size = if self.gate_by_mean { mean.get() / self.mean_scale_F[f] } else { d }.abs();
                    let beyond = size > self.gate;
                    let rows_out = if beyond { out.get().wrapping_add(1) } else { 0 };
                    let still = beyond && self.accept_after.is_none_or(|after| rows_out <= after);
                    baseline.set(baseline.get() + moved(if still { 0.0 } else { self.baseline_weight * d }));
                    fast.set(fast.get() + moved(self.fast_weight * (d * d - fast.get())));
                    if present {
                        out.set(rows_out);
                    }
                    if follows_mean {
                        mean.set(mean.get() + moved(self.mean_weight * (d - mean.get())));
                    }
                    let mut part = fast.get();
                    if self.slow_share > 0.0 {
                        let slow = &slow_EF[cell];
                        let in_spreads = mean.get() / self.mean_scale_F[f];
                        slow.set(slow.get() + moved(self.slow_weight * (in_spreads * in_spreads - slow.get())));
                        part = (part + self.slow_share * slow.get()) / (1.0 + self.slow_share);
                    }
                    deviation_BF[at].set(d);
                    feature_BF[at].set(if present { part } else { 0.0 });
                    if let Some(mean_BF) = mean_BF {
                        mean_BF[at].set(mean.get());
                    }
                }
            }
        }
        Ok(())
    }
}
