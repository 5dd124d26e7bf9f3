//! The usual forms of RFC 3339 as epoch milliseconds, to the bit as Python's datetime gives them.

const LATEST_MS: i64 = 253_402_300_799_999; // the end of year 9999
const SECONDS_BELOW: f64 = 1e11; // a smaller number is epoch seconds, a larger one ms

/// `None`: for the twin to read or refuse.
pub fn in_range(timestamp_ms: i64) -> Option<i64> {
    (0..=LATEST_MS).contains(&timestamp_ms).then_some(timestamp_ms)
}

pub fn of_integer(value: i64) -> Option<i64> {
    in_range(if (value.unsigned_abs() as f64) < SECONDS_BELOW { value.checked_mul(1000)? } else { value })
}

pub fn of_float(value: f64) -> Option<i64> {
    let ms = if value.abs() < SECONDS_BELOW { value * 1000.0 } else { value }.round_ties_even();
    // The bounds are far within what both types hold.
    (ms >= 0.0 && ms <= LATEST_MS as f64).then_some(ms as i64).and_then(in_range)
}

/// YYYY-MM-DD, T or a space, hh:mm:ss, up to 6 digits of a second, Z or ±hh:mm or nothing (which is UTC).
pub fn of_text(text: &[u8]) -> Option<i64> {
    if text.len() < 19 || text[4] != b'-' || text[7] != b'-' || text[13] != b':' || text[16] != b':' {
        return None;
    }
    if text[10] != b'T' && text[10] != b' ' {
        return None;
    }
    let (year, month, day) = (digits(&text[..4])?, digits(&text[5..7])?, digits(&text[8..10])?);
    let (hour, minute, second) = (digits(&text[11..13])?, digits(&text[14..16])?, digits(&text[17..19])?);
    if year < 1970 || !(1..=12).contains(&month) || day < 1 || day > days_in(year, month) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut rest = &text[19..];
    let mut micros = 0;
    if let [b'.', tail @ ..] = rest {
        let many = tail.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if many == 0 || many > 6 {
            return None;
        }
        micros = digits(&tail[..many])? * 10_i64.pow(6 - many as u32);
        rest = &tail[many..];
    }
    let east_seconds = match rest {
        [] | [b'Z'] => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (digits(&[*h1, *h2])?, digits(&[*m1, *m2])?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            (hours * 3600 + minutes * 60) * if *sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };
    let seconds = days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - east_seconds;
    let total_us = seconds * 1_000_000 + micros;
    if !(0..1_i64 << 53).contains(&total_us) {
        return None; // exact as a double up to the year 2255
    }
    of_rounded((total_us as f64 / 1e6) * 1000.0)
}

fn of_rounded(ms: f64) -> Option<i64> {
    in_range(ms.round_ties_even() as i64)
}

fn digits(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0')))
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + i64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 (Hinnant, "chrono-Compatible Low-Level Date Algorithms", days_from_civil).
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year / 400;
    let of_era = year - era * 400;
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}
