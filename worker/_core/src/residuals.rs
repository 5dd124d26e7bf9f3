//! Readings beside what the model expects of them: the twin of worker/detection/residuals.py.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::buffers::{counted, Array};
use crate::sums::pairwise;

/// Offset, span, and the largest scaled value.
type PyScaling = (Array<f32>, Array<f32>, f64);
/// Residuals in spreads, what is expected, whether a feature is missing, whether all are.
type PyOut = (Array<f64>, Array<f32>, Array<u8>, Array<u8>);

#[pyfunction]
pub fn compare(
    py: Python<'_>, scaling: PyScaling, spread_F: Array<f64>, x_BF: Array<f32>, output_BF: Array<f32>, out: PyOut,
) -> PyResult<()> {
    let (offset_F, span_F, largest) = (scaling.0.copied(py)?, scaling.1.copied(py)?, scaling.2);
    let (spread_F, x_BF) = (spread_F.copied(py)?, x_BF.shown(py)?);
    let features = spread_F.len();
    if features == 0 || offset_F.len() != features || span_F.len() != features || x_BF.len() % features != 0 {
        return Err(PyValueError::new_err("readings do not have the features of their scaling"));
    }
    let (rows, output_BF) = (x_BF.len() / features, counted(output_BF.shown(py)?, x_BF.len())?);
    let (unit_BF, expected_BF) = (out.0.cells(py, x_BF.len())?, out.1.cells(py, x_BF.len())?);
    let (imputed_B, empty_B) = (out.2.cells(py, rows)?, out.3.cells(py, rows)?);
    for row in 0..rows {
        let of = row * features..(row + 1) * features;
        let (x_F, output_F) = (&x_BF[of.clone()], &output_BF[of.clone()]);
        let (unit_F, expected_F) = (&unit_BF[of.clone()], &expected_BF[of]);
        let mut missing = 0;
        for f in 0..features {
            let (x, output) = (x_F[f].get(), output_F[f].get());
            let wide = (f64::from(x) - f64::from(offset_F[f])) / f64::from(span_F[f]);
            let scaled = wide.clamp(-largest, largest) as f32;
            unit_F[f].set((f64::from(scaled) - f64::from(output)) / spread_F[f]);
            expected_F[f].set(output * span_F[f] + offset_F[f]);
            missing += usize::from(x.is_nan());
        }
        imputed_B[row].set(u8::from(missing > 0));
        empty_B[row].set(u8::from(missing == features));
    }
    Ok(())
}

#[pyfunction]
pub fn mean_square(
    py: Python<'_>, unit_BF: Array<f64>, judged_B: Array<u8>, mean_B: Array<f64>, square_BF: Array<f64>,
) -> PyResult<()> {
    let (unit_BF, judged_B) = (unit_BF.shown(py)?, judged_B.shown(py)?);
    let rows = judged_B.len();
    let (mean_B, square_BF) = (mean_B.cells(py, rows)?, square_BF.cells(py, unit_BF.len())?);
    if rows == 0 {
        return Ok(());
    }
    let features = unit_BF.len() / rows;
    counted(unit_BF, rows * features)?;
    let mut square_F = vec![0.0; features];
    for row in 0..rows {
        let (of, judged) = (row * features..(row + 1) * features, judged_B[row].get() != 0);
        let mut present = 0;
        for (unit, square) in unit_BF[of.clone()].iter().zip(&mut square_F) {
            let there = judged && !unit.get().is_nan();
            *square = if there { unit.get() * unit.get() } else { 0.0 };
            present += usize::from(there);
        }
        mean_B[row].set(pairwise(&square_F) / present.max(1) as f64);
        square_BF[of].iter().zip(&square_F).for_each(|(to, from)| to.set(*from));
    }
    Ok(())
}
