//! The twin of Chart._in_python in worker/detection/chart.py: the same operations in the same order, so the same bits.
//!
//! Legend: B rows, E entities, F features.

use std::cell::Cell;

use pyo3::buffer::ReadOnlyCell;
use pyo3::prelude::*;

use crate::buffers::{counted, Array};
use crate::sums::pairwise;
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
    largest_F: Option<Vec<f64>>, // of each deviation, where one that is larger counts by itself
    most: f64,                   // that memory takes in
}

#[pymethods]
impl Chart {
    #[new]
    #[allow(clippy::too_many_arguments)]
    #[pyo3(signature = (
        *, fast_weight, slow_share, mean_weight, slow_weight, baseline_weight, gate, gate_by_mean, accept_after,
        mean_scale_F, largest_F, most
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
        largest_F: Option<Vec<f64>>,
        most: f64,
    ) -> Self {
        Chart {
            fast_weight, slow_share, mean_weight, slow_weight, baseline_weight, gate, gate_by_mean, accept_after,
            mean_scale_F, largest_F, most,
        }
    }

    /// residual_BF → raw_B, feature_BF and, where it is asked for, mean_BF; the memory moves on. NaN: missing.
    #[allow(clippy::too_many_arguments, clippy::type_complexity)]
    fn update(
        &self,
        py: Python<'_>,
        visits: (Array<i64>, Array<i64>, Array<i64>),
        residual_BF: Array<f64>,
        judged_B: Array<u8>,
        raw_B: Array<f64>,
        feature_BF: Array<f64>,
        mean_BF: Option<Array<f64>>,
        memory: (Array<f64>, Array<f64>, Array<f64>, Array<f64>, Array<i32>),
    ) -> PyResult<()> {
        let visits = Visits::of(py, &visits.0, &visits.1, &visits.2)?;
        let features = self.mean_scale_F.len();
        let (rows, of_entities) = (visits.order_B.len(), visits.entities() * features);
        let residual_BF = counted(residual_BF.shown(py)?, rows * features)?;
        let judged_B = counted(judged_B.shown(py)?, rows)?;
        let raw_B = raw_B.cells(py, rows)?;
        let feature_BF = feature_BF.cells(py, rows * features)?;
        let mean_BF = mean_BF.as_ref().map(|mean_BF| mean_BF.cells(py, rows * features)).transpose()?;
        let baseline_EF = memory.0.cells(py, of_entities)?;
        let mean_EF = memory.1.cells(py, of_entities)?;
        let fast_EF = memory.2.cells(py, of_entities)?;
        let slow_EF = memory.3.cells(py, of_entities)?;
        let out_EF = memory.4.cells(py, of_entities)?;
        let mut row_of = Row::of(features);
        let mut known = Known::of(features);
        for entity in 0..visits.entities() {
            let of = entity * features..(entity + 1) * features;
            let kept = [&baseline_EF[of.clone()], &mean_EF[of.clone()], &fast_EF[of.clone()], &slow_EF[of.clone()]];
            known.take(kept, &out_EF[of.clone()]);
            for &row in visits.rows_of(entity) {
                let here = row * features..(row + 1) * features;
                let count = row_of.take(&residual_BF[here.clone()], judged_B[row].get() != 0, self.most);
                self.step(&mut known, &mut row_of);
                raw_B[row].set(self.told(&mut row_of, count));
                set(&feature_BF[here.clone()], &row_of.part_F);
                if let Some(mean_BF) = mean_BF {
                    set(&mean_BF[here], &known.mean_F);
                }
            }
            known.give(kept, &out_EF[of]);
        }
        Ok(())
    }
}

/// One entity's memory, in arrays of its own: the compiler need not fear that one is part of another.
struct Known {
    baseline_F: Vec<f64>,
    mean_F: Vec<f64>,
    fast_F: Vec<f64>,
    slow_F: Vec<f64>,
    out_F: Vec<i32>,
}

impl Known {
    fn of(features: usize) -> Self {
        let zeros = || vec![0.0; features];
        Known { baseline_F: zeros(), mean_F: zeros(), fast_F: zeros(), slow_F: zeros(), out_F: vec![0; features] }
    }

    fn columns(&mut self) -> [&mut Vec<f64>; 4] {
        [&mut self.baseline_F, &mut self.mean_F, &mut self.fast_F, &mut self.slow_F]
    }

    fn take(&mut self, kept: [&[Cell<f64>]; 4], out_F: &[Cell<i32>]) {
        for (column, kept_F) in self.columns().into_iter().zip(kept) {
            column.iter_mut().zip(kept_F).for_each(|(to, from)| *to = from.get());
        }
        self.out_F.iter_mut().zip(out_F).for_each(|(to, from)| *to = from.get());
    }

    fn give(&mut self, kept: [&[Cell<f64>]; 4], out_F: &[Cell<i32>]) {
        for (column, kept_F) in self.columns().into_iter().zip(kept) {
            set(kept_F, column);
        }
        self.out_F.iter().zip(out_F).for_each(|(from, to)| to.set(*from));
    }
}

/// The reading at hand.
struct Row {
    present_F: Vec<bool>,
    deviation_F: Vec<f64>,
    part_F: Vec<f64>,
}

impl Row {
    fn of(features: usize) -> Self {
        Row { present_F: vec![false; features], deviation_F: vec![0.0; features], part_F: vec![0.0; features] }
    }

    /// Returns how many features are there.
    fn take(&mut self, residual_F: &[ReadOnlyCell<f64>], judged: bool, most: f64) -> usize {
        for (f, residual) in residual_F.iter().enumerate() {
            let residual = residual.get();
            self.present_F[f] = judged && !residual.is_nan();
            self.deviation_F[f] = if self.present_F[f] { residual.clamp(-most, most) } else { 0.0 };
        }
        self.present_F.iter().filter(|present| **present).count()
    }
}

impl Chart {
    /// Residuals become deviations, each feature's part in the score is there, and the memory has moved on.
    fn step(&self, known: &mut Known, row: &mut Row) {
        let memory = (&mut known.baseline_F[..], &mut known.fast_F[..], &mut known.out_F[..]);
        let lasting = (&mut known.mean_F[..], &mut known.slow_F[..], &self.mean_scale_F[..]);
        let at_hand = (&row.present_F[..], &mut row.deviation_F[..], &mut row.part_F[..]);
        match (self.slow_share > 0.0, self.gate_by_mean) {
            (false, false) => self.advance::<false, false>(memory, lasting, at_hand),
            (false, true) => self.advance::<false, true>(memory, lasting, at_hand),
            (true, false) => self.advance::<true, false>(memory, lasting, at_hand),
            (true, true) => self.advance::<true, true>(memory, lasting, at_hand),
        }
    }

    fn advance<const SLOW: bool, const BY_MEAN: bool>(
        &self,
        (baseline_F, fast_F, out_F): (&mut [f64], &mut [f64], &mut [i32]),
        (mean_F, slow_F, mean_scale_F): (&mut [f64], &mut [f64], &[f64]),
        (present_F, deviation_F, part_F): (&[bool], &mut [f64], &mut [f64]),
    ) {
        let features = present_F.len();
        let (baseline_F, fast_F, out_F) = (&mut baseline_F[..features], &mut fast_F[..features], &mut out_F[..features]);
        let (mean_F, slow_F) = (&mut mean_F[..features], &mut slow_F[..features]);
        let (mean_scale_F, deviation_F) = (&mean_scale_F[..features], &mut deviation_F[..features]);
        let part_F = &mut part_F[..features];
        let accept_after = self.accept_after.unwrap_or(i32::MAX);
        for f in 0..features {
            let present = present_F[f];
            let moved = |by: f64| if present { by } else { 0.0 };
            let d = deviation_F[f] - baseline_F[f];
            let size = if BY_MEAN { mean_F[f] / mean_scale_F[f] } else { d }.abs();
            let beyond = size > self.gate;
            let rows_out = if beyond { out_F[f].wrapping_add(1) } else { 0 };
            let still = beyond & (rows_out <= accept_after);
            baseline_F[f] += moved(if still { 0.0 } else { self.baseline_weight * d });
            fast_F[f] += moved(self.fast_weight * (d * d - fast_F[f]));
            out_F[f] = if present { rows_out } else { out_F[f] };
            if SLOW || BY_MEAN {
                mean_F[f] += moved(self.mean_weight * (d - mean_F[f]));
            }
            let mut part = fast_F[f];
            if SLOW {
                let in_spreads = mean_F[f] / mean_scale_F[f];
                slow_F[f] += moved(self.slow_weight * (in_spreads * in_spreads - slow_F[f]));
                part = (part + self.slow_share * slow_F[f]) / (1.0 + self.slow_share);
            }
            deviation_F[f] = d;
            part_F[f] = if present { part } else { 0.0 };
        }
    }

    /// The raw score; parts are shared out anew where one deviation alone makes it.
    fn told(&self, row: &mut Row, count: usize) -> f64 {
        let count = count.max(1) as f64;
        let raw = (pairwise(&row.part_F) / count).sqrt();
        let Some(largest_F) = &self.largest_F else { return raw };
        let mut spike: f64 = 0.0;
        for ((share, present), largest) in row.deviation_F.iter_mut().zip(&row.present_F).zip(largest_F) {
            *share = if *present { share.abs() / largest } else { 0.0 };
            spike = spike.max(*share);
        }
        if spike <= raw {
            return raw;
        }
        row.deviation_F.iter_mut().for_each(|share| *share *= *share);
        let whole = pairwise(&row.deviation_F);
        for (part, square) in row.part_F.iter_mut().zip(&row.deviation_F) {
            *part = square * (spike * spike * count) / whole;
        }
        spike
    }
}

fn set(to: &[Cell<f64>], from: &[f64]) {
    to.iter().zip(from).for_each(|(to, from)| to.set(*from));
}
