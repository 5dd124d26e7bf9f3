//! Sums in numpy's order, so that they are numpy's to the bit.

const BLOCK: usize = 128;
const LANES: usize = 8;

/// numpy's sum of numbers that lie side by side: pairwise, in blocks of eight running sums.
pub fn pairwise(numbers: &[f64]) -> f64 {
    let n = numbers.len();
    if n < LANES {
        return numbers.iter().fold(0.0, |sum, number| sum + number);
    }
    if n > BLOCK {
        let half = n / 2 - n / 2 % LANES;
        return pairwise(&numbers[..half]) + pairwise(&numbers[half..]);
    }
    let mut sums = [0.0; LANES];
    sums.copy_from_slice(&numbers[..LANES]);
    let blocks = numbers[LANES..].chunks_exact(LANES);
    let rest = blocks.remainder();
    for block in blocks {
        for (sum, number) in sums.iter_mut().zip(block) {
            *sum += number;
        }
    }
    let [a, b, c, d, e, f, g, h] = sums;
    rest.iter().fold(((a + b) + (c + d)) + ((e + f) + (g + h)), |sum, number| sum + number)
}
