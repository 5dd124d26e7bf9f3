//! The time that passes in partitions' streams: the twin of `Silence._pass` in worker/faults/silence.py.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::buffers::{counted, Array};

/// Of a partition: its last timestamp, the newest that two readings in a row have reached, the time that has passed.
const KNOWN: usize = 3;
/// Stream time before and after each reading, and the newest timestamp after it.
type PyPassed = (Array<i64>, Array<i64>, Array<i64>);

#[pyfunction]
pub fn pass_time(
    py: Python<'_>, partition_B: Array<i32>, stamp_B: Array<i64>, after_ms: i64, stream_PK: Array<i64>, out: PyPassed,
) -> PyResult<()> {
    let partition_B = partition_B.shown(py)?;
    let rows = partition_B.len();
    let stamp_B = counted(stamp_B.shown(py)?, rows)?;
    let (before_B, time_B, newest_B) = (out.0.cells(py, rows)?, out.1.cells(py, rows)?, out.2.cells(py, rows)?);
    let streams = stream_PK.shown(py)?.len();
    let stream_PK = stream_PK.cells(py, streams)?;
    for row in 0..rows {
        let partition = usize::try_from(partition_B[row].get()).ok();
        let Some(stream_K) = partition.and_then(|partition| stream_PK.chunks_exact(KNOWN).nth(partition)) else {
            return Err(PyValueError::new_err("a partition has no place"));
        };
        let [last, newest, time] = stream_K else { unreachable!("chunks of {KNOWN}") };
        let stamp = stamp_B[row].get();
        let reached = newest.get().max(stamp.min(last.get()));
        let step = reached.wrapping_sub(newest.get());
        before_B[row].set(time.get());
        last.set(stamp);
        newest.set(reached);
        time.set(time.get().wrapping_add(if step > after_ms { 0 } else { step }));
        time_B[row].set(time.get());
        newest_B[row].set(reached);
    }
    Ok(())
}
