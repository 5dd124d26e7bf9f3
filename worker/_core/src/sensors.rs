//! The twin of SensorFaults.update in worker/faults/sensors.py, reading by reading: the same faults, the same memory.
//!
//! Legend: B rows, E entities, F features.

use std::cell::Cell;

use pyo3::buffer::ReadOnlyCell;
use pyo3::prelude::*;

use crate::buffers::{counted, Array};
use crate::visits::Visits;

/// Kind (its bit), row, feature.
type Begun = (i8, usize, usize);

#[pyclass(frozen)]
pub struct Sensors {
    stuck_after_F: Vec<i32>,
    missing_after_F: Vec<i32>,
    low_F: Vec<f32>,
    high_F: Vec<f32>,
    never: i32,
    longest: i32,
    stuck: i8,
    missing: i8,
    out: i8,
}

/// One entity's memory.
struct Known {
    last_F: Vec<f32>,
    equal_F: Vec<i32>,
    missing_F: Vec<i32>,
    out_F: Vec<bool>,
    calm: bool, // no feature has a run, and none is out
}

#[pymethods]
impl Sensors {
    #[new]
    #[allow(clippy::too_many_arguments)]
    #[pyo3(signature = (*, stuck_after_F, missing_after_F, low_F, high_F, never, longest, stuck, missing, out))]
    fn new(
        stuck_after_F: Vec<i32>,
        missing_after_F: Vec<i32>,
        low_F: Vec<f32>,
        high_F: Vec<f32>,
        never: i32,
        longest: i32,
        stuck: i8,
        missing: i8,
        out: i8,
    ) -> Self {
        Sensors { stuck_after_F, missing_after_F, low_F, high_F, never, longest, stuck, missing, out }
    }

    /// What begins; the memory (last value, equal ones, missing ones, what is open) moves on.
    #[allow(clippy::type_complexity)]
    fn update(
        &self,
        py: Python<'_>,
        visits: (Array<i64>, Array<i64>, Array<i64>),
        x_BF: Array<f32>,
        memory: (Array<f32>, Array<i32>, Array<i32>, Array<i8>),
    ) -> PyResult<Vec<Begun>> {
        let visits = Visits::of(py, &visits.0, &visits.1, &visits.2)?;
        let features = self.low_F.len();
        let x_BF = counted(x_BF.shown(py)?, visits.order_B.len() * features)?;
        let of_entities = visits.entities() * features;
        let last_EF = memory.0.cells(py, of_entities)?;
        let equal_EF = memory.1.cells(py, of_entities)?;
        let missing_EF = memory.2.cells(py, of_entities)?;
        let open_EF = memory.3.cells(py, of_entities)?;
        let mut begun = Vec::new();
        for entity in 0..visits.entities() {
            let here = entity * features..(entity + 1) * features;
            let (last, equal) = (&last_EF[here.clone()], &equal_EF[here.clone()]);
            let (missing, open) = (&missing_EF[here.clone()], &open_EF[here]);
            let mut known = self.known(last, equal, missing, open);
            for &row in visits.rows_of(entity) {
                let x_F = &x_BF[row * features..(row + 1) * features];
                if !(known.calm && self.is_plain(&known, x_F)) {
                    known.calm = self.step(&mut known, x_F, row, &mut begun);
                }
                known.last_F.iter_mut().zip(x_F).filter(|(_, x)| !x.get().is_nan()).for_each(|(to, x)| *to = x.get());
            }
            for f in 0..features {
                let bit = |is: bool, bit: i8| if is { bit } else { 0 };
                last[f].set(known.last_F[f]);
                equal[f].set(known.equal_F[f]);
                missing[f].set(known.missing_F[f]);
                open[f].set(
                    bit(known.out_F[f], self.out)
                        | bit(known.missing_F[f] >= self.missing_after_F[f], self.missing)
                        | bit(known.equal_F[f] >= self.stuck_after_F[f], self.stuck),
                );
            }
        }
        Ok(begun)
    }
}

impl Sensors {
    fn known(&self, last: &[Cell<f32>], equal: &[Cell<i32>], missing: &[Cell<i32>], open: &[Cell<i8>]) -> Known {
        let run = |f: usize, run: i32, after_F: &[i32], bit: i8| self.so_far(run, after_F[f], open[f].get() & bit != 0);
        Known {
            last_F: last.iter().map(Cell::get).collect(),
            equal_F: (0..last.len()).map(|f| run(f, equal[f].get(), &self.stuck_after_F, self.stuck)).collect(),
            missing_F: (0..last.len()).map(|f| run(f, missing[f].get(), &self.missing_after_F, self.missing)).collect(),
            out_F: open.iter().map(|open| open.get() & self.out != 0).collect(),
            calm: false,
        }
    }

    /// What was said stays said, though another model version may have said it at another length.
    fn so_far(&self, run: i32, after: i32, said: bool) -> i32 {
        if said && after != self.never {
            run.max(after)
        } else {
            run.min(after - 1)
        }
    }

    /// Whether the next reading begins no run and is nowhere out. Most do not, and are.
    fn is_plain(&self, known: &Known, x_F: &[ReadOnlyCell<f32>]) -> bool {
        let limits = self.low_F.iter().zip(&self.high_F);
        x_F.iter().zip(&known.last_F).zip(limits).fold(true, |plain, ((x, last), (low, high))| {
            plain & (x.get() != *last) & (x.get() >= *low) & (x.get() <= *high)
        })
    }

    /// The next reading, and what begins with it; whether all is calm then.
    fn step(&self, known: &mut Known, x_F: &[ReadOnlyCell<f32>], row: usize, begun: &mut Vec<Begun>) -> bool {
        let mut calm = true;
        for (f, x) in x_F.iter().enumerate() {
            let x = x.get();
            if x.is_nan() {
                calm = false;
                // It neither counts as an equal one nor breaks their run.
                known.missing_F[f] = (known.missing_F[f] + 1).min(self.longest);
                if known.missing_F[f] == self.missing_after_F[f] {
                    begun.push((self.missing, row, f));
                }
                continue;
            }
            known.missing_F[f] = 0;
            let same = x == known.last_F[f] && self.stuck_after_F[f] != self.never;
            known.equal_F[f] = if same { (known.equal_F[f] + 1).min(self.longest) } else { 1 };
            if same && known.equal_F[f] == self.stuck_after_F[f] {
                begun.push((self.stuck, row, f));
            }
            let out = x < self.low_F[f] || x > self.high_F[f];
            if out && !known.out_F[f] {
                begun.push((self.out, row, f));
            }
            known.out_F[f] = out;
            calm &= !same && !out;
        }
        calm
    }
}
