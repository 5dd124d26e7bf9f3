//! The twin of gather in worker/detection/windows.py, and of Scaling in worker/detection/scaling.py: the same
//! operations in the same order, so the same bits.
//!
//! Legend: B rows, E entities, W readings of a window, P = W-1 before the newest, F features, K rows of the stack.

use std::cell::Cell;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::buffers::{counted, Array};
use crate::visits::Visits;

/// Stack and index are filled; history, its length and the last timestamp of each entity move on.
#[pyfunction]
#[pyo3(signature = (visits, window, gap_ms, x_BF, stamp_B, memory, out))]
#[allow(clippy::too_many_arguments)]
pub fn gather(
    py: Python<'_>,
    visits: (Array<i64>, Array<i64>, Array<i64>),
    window: usize,
    gap_ms: Option<i64>,
    x_BF: Array<f32>,
    stamp_B: Array<i64>,
    memory: (Array<f32>, Array<i32>, Array<i64>),
    out: (Array<f32>, Array<i64>, Array<u8>),
) -> PyResult<()> {
    let visits = Visits::of(py, &visits.0, &visits.1, &visits.2)?;
    let (rows, entities) = (visits.order_B.len(), visits.entities());
    if rows == 0 || window == 0 {
        return Ok(());
    }
    let x_BF = x_BF.shown(py)?;
    let features = x_BF.len() / rows;
    if features * rows != x_BF.len() {
        return Err(PyValueError::new_err("readings are of different lengths"));
    }
    let past = window - 1;
    let stamp_B = counted(stamp_B.shown(py)?, rows)?;
    let history_EPF = memory.0.cells(py, entities * past * features)?;
    let filled_E = memory.1.cells(py, entities)?;
    let last_ms_E = memory.2.cells(py, entities)?;
    let stack_KF = out.0.cells(py, (1 + rows + past * entities) * features)?;
    let index_BW = out.1.cells(py, rows * window)?;
    let full_B = out.2.cells(py, rows)?;

    stack_KF[..features].iter().for_each(|missing| missing.set(f32::NAN));
    let mut place = 1;
    for entity in visits.by_place() {
        let history_PF = &history_EPF[entity * past * features..][..past * features];
        copy(history_PF, &stack_KF[place * features..][..past * features]);
        let mut newest = place + past;
        let mut run = i64::from(filled_E[entity].get());
        let mut before = last_ms_E[entity].get();
        for &row in visits.rows_of(entity) {
            for (from, to) in x_BF[row * features..][..features].iter().zip(&stack_KF[newest * features..][..features]) {
                to.set(from.get());
            }
            let stamp = stamp_B[row].get();
            let apart = gap_ms.is_some_and(|gap| before >= 0 && stamp.wrapping_sub(before) > gap);
            run = if apart { 1 } else { run + 1 };
            before = stamp;
            for (back, index) in (0..window).rev().zip(&index_BW[row * window..][..window]) {
                index.set(if (back as i64) < run { (newest - back) as i64 } else { 0 });
            }
            full_B[row].set((run >= window as i64).into());
            newest += 1;
        }
        copy(&stack_KF[(newest - past) * features..][..past * features], history_PF);
        filled_E[entity].set(run.min(past as i64) as i32);
        last_ms_E[entity].set(before);
        place = newest;
    }
    Ok(())
}

fn copy(from: &[Cell<f32>], to: &[Cell<f32>]) {
    for (from, to) in from.iter().zip(to) {
        to.set(from.get());
    }
}

/// out = (x − offset) / span in double precision and within ±largest; fill, where it is given, for what is missing.
#[pyfunction]
#[pyo3(signature = (x_BF, offset_F, span_F, largest, fill_F, out_BF))]
pub fn scale(
    py: Python<'_>,
    x_BF: Array<f32>,
    offset_F: Array<f32>,
    span_F: Array<f32>,
    largest: f64,
    fill_F: Option<Array<f32>>,
    out_BF: Array<f32>,
) -> PyResult<()> {
    let wide = |array: &Array<f32>| Ok::<_, PyErr>(array.copied(py)?.into_iter().map(f64::from).collect::<Vec<_>>());
    let (offset_F, span_F) = (wide(&offset_F)?, wide(&span_F)?);
    let fill_F = match fill_F {
        Some(fill_F) => fill_F.copied(py)?,
        None => vec![f32::NAN; span_F.len()],
    };
    let features = span_F.len();
    let x_BF = x_BF.shown(py)?;
    let out_BF = out_BF.cells(py, x_BF.len())?;
    if features == 0 || offset_F.len() != features || fill_F.len() != features || x_BF.len() % features != 0 {
        return Err(PyValueError::new_err("readings do not have the features of their scaling"));
    }
    for (x_F, out_F) in x_BF.chunks_exact(features).zip(out_BF.chunks_exact(features)) {
        for f in 0..features {
            let scaled = ((f64::from(x_F[f].get()) - offset_F[f]) / span_F[f]).clamp(-largest, largest) as f32;
            out_F[f].set(if scaled.is_nan() { fill_F[f] } else { scaled });
        }
    }
    Ok(())
}
