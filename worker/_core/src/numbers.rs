//! float32 as people write them.

use pyo3::prelude::*;

use crate::buffers::Array;

/// The doubles with the fewest digits that are these float32: 8.8739, not 8.873900413513184.
#[pyfunction]
pub fn shortest(py: Python<'_>, numbers: Array<f32>, out: Array<f64>) -> PyResult<()> {
    let numbers = numbers.shown(py)?;
    out.cells(py, numbers.len())?.iter().zip(numbers).for_each(|(out, number)| out.set(double(number.get())));
    Ok(())
}

/// Between two that are as near, numpy takes the even one, and Rust does so where it is told how many digits; of a power
/// of two, that may be another number.
fn double(number: f32) -> f64 {
    let text = format!("{number:e}");
    let digits = text.bytes().take_while(|&byte| byte != b'e').filter(u8::is_ascii_digit).count();
    let even = format!("{number:.*e}", digits.saturating_sub(1));
    let chosen = if even.parse() == Ok(number) { even } else { text };
    chosen.parse().unwrap_or(f64::from(number))
}
