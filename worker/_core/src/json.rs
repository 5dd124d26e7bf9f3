//! Strict JSON, as far as a plain reading needs it. `None` everywhere: for the twin to read or refuse. What is taken
//! here, the twin takes with the same value: it must never be the laxer of the two.

const DEPTH: usize = 32;
const EXACT: u64 = 1 << 53;
// Static: as constants they would be copied to the stack for each number.
static POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19,
    1e20, 1e21, 1e22,
];

const LANES: usize = 8;
const SHORT: usize = 20; // a sign, two runs of digits, the point, and what comes after
static WHOLE_POWERS: [u64; 8] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000];

/// The number that the first bytes say, and how many of them are digits; None where all are, and more may come.
/// The digits are added up in pairs, fours and all (Lemire, "Quickly parsing eight digits", 2018).
#[inline(always)]
fn leading_digits(bytes: [u8; LANES]) -> Option<(u64, usize)> {
    let values = u64::from_le_bytes(bytes) ^ 0x3030_3030_3030_3030;
    // The lowest byte above 9 is found for certain: a carry goes to those after it.
    let others = (values.wrapping_add(0x7676_7676_7676_7676) | values) & 0x8080_8080_8080_8080;
    let many = others.trailing_zeros() as usize / 8;
    if many == 0 || many == LANES {
        return (many == 0).then_some((0, 0));
    }
    let digits = values << (64 - 8 * many); // zeros before them
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8);
    let upper = (pairs & 0x0000_00ff_0000_00ff).wrapping_mul(0x000f_4240_0000_0064);
    let lower = ((pairs >> 16) & 0x0000_00ff_0000_00ff).wrapping_mul(0x0000_2710_0000_0001);
    Some((upper.wrapping_add(lower) >> 32, many))
}

/// A number of fewer than eight digits before the point and after it, without an exponent.
struct Short {
    value: f64,
    end: usize,
    integer: bool,
}

impl Short {
    /// Eight digits at a time and with no question that depends on how many there are. None: any other number.
    #[inline(always)]
    fn of(text: &[u8; SHORT]) -> Option<Self> {
        let minus = text[0] == b'-';
        let from = usize::from(minus);
        let (whole, many) = leading_digits(text[from..from + LANES].try_into().ok()?)?;
        if many == 0 || (many > 1 && text[from] == b'0') {
            return None;
        }
        let mut end = from + many;
        let integer = text[end] != b'.';
        let (mut mantissa, mut decimals) = (whole, 0);
        if !integer {
            let (fraction, found) = leading_digits(text[end + 1..end + 1 + LANES].try_into().ok()?)?;
            if found == 0 {
                return None;
            }
            decimals = found;
            mantissa = whole.wrapping_mul(WHOLE_POWERS[decimals]).wrapping_add(fraction);
            end += 1 + decimals;
        }
        if matches!(text[end], b'e' | b'E') || (integer && minus && mantissa == 0) {
            return None;
        }
        // Both are exact, so that this rounds once. A sign is a bit: asking for it would be guessing it, half the time wrong.
        let size = mantissa as i64 as f64 / POWERS[decimals];
        let value = f64::from_bits(size.to_bits() | u64::from(minus) << 63);
        Some(Short { value, end, integer })
    }
}

pub struct Json<'a> {
    text: &'a [u8],
    at: usize,
    depth: usize,
}

pub struct Number<'a> {
    pub value: f64,
    /// Its digits where it is written as an integer.
    pub integer: Option<&'a [u8]>,
}

impl<'a> Json<'a> {
    /// depth: of brackets, at most.
    pub fn of(text: &'a [u8], depth: usize) -> Self {
        Json { text, at: 0, depth: depth.min(DEPTH) }
    }

    #[inline]
    pub fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// The next byte that is no space.
    #[inline]
    pub fn next_token(&mut self) -> Option<u8> {
        loop {
            match self.peek()? {
                b' ' | b'\t' | b'\n' | b'\r' => self.at += 1,
                byte => return Some(byte),
            }
        }
    }

    #[inline]
    pub fn take(&mut self, token: u8) -> Option<()> {
        (self.next_token()? == token).then(|| self.at += 1)
    }

    pub fn at_end(&mut self) -> bool {
        self.next_token().is_none()
    }

    pub fn word(&mut self, word: &[u8]) -> Option<()> {
        self.text[self.at..].starts_with(word).then(|| self.at += word.len())
    }

    /// Past this very string, which must need no escapes; false where another stands here.
    #[inline]
    pub fn is_string(&mut self, expected: &[u8]) -> bool {
        match self.text[self.at..].split_first() {
            Some((b'"', rest)) if rest.len() > expected.len() => {
                let same = rest[..expected.len()] == *expected && rest[expected.len()] == b'"';
                self.at += if same { expected.len() + 2 } else { 0 };
                same
            }
            _ => false,
        }
    }

    /// A string without escapes, as its bytes.
    #[inline]
    pub fn plain_string(&mut self) -> Option<&'a [u8]> {
        self.take(b'"')?;
        let rest = &self.text[self.at..];
        let length = rest.iter().position(|&byte| byte == b'"' || byte == b'\\' || byte < 0x20)?;
        self.at += length + 1;
        (rest[length] == b'"').then(|| &rest[..length])
    }

    #[inline]
    pub fn number(&mut self) -> Option<Number<'a>> {
        match self.short_number() {
            Some(number) => Some(number),
            None => self.any_number(),
        }
    }

    fn short_number(&mut self) -> Option<Number<'a>> {
        let text = self.text.get(self.at..)?;
        let Short { value, end, integer } = Short::of(text.first_chunk()?)?;
        self.at += end;
        Some(Number { value, integer: integer.then_some(&text[..end]) })
    }

    /// Past members of an object or array that are each a lead, a short number and a comma, for as long as they are.
    /// Returns how many; their values go to the first places.
    #[inline(never)]
    pub fn run<'l>(&mut self, leads: impl Iterator<Item = &'l [u8]>, places: &mut [f32]) -> usize {
        let mut rest = &self.text[self.at..];
        let mut many = 0;
        for (lead, place) in leads.zip(places) {
            let Some(text) = rest.strip_prefix(lead) else { break };
            let Some(Short { value, end, .. }) = text.first_chunk().and_then(Short::of) else { break };
            if text[end] != b',' {
                break;
            }
            *place = value as f32;
            rest = &text[end + 1..];
            many += 1;
        }
        self.at = self.text.len() - rest.len();
        many
    }

    fn any_number(&mut self) -> Option<Number<'a>> {
        let start = self.at;
        let minus = self.peek()? == b'-';
        self.at += usize::from(minus);
        let mut mantissa: u64 = 0;
        let first = self.at;
        self.digits(&mut mantissa);
        let mut many = self.at - first;
        if many == 0 || (many > 1 && self.text[first] == b'0') {
            return None;
        }
        let mut exponent: i64 = 0;
        let mut integer = true;
        if self.peek() == Some(b'.') {
            integer = false;
            self.at += 1;
            let from = self.at;
            self.digits(&mut mantissa);
            let fraction = self.at - from;
            if fraction == 0 {
                return None;
            }
            many += fraction;
            exponent = -(fraction as i64);
        }
        if let Some(b'e' | b'E') = self.peek() {
            integer = false;
            self.at += 1;
            let down = match self.peek()? {
                sign @ (b'+' | b'-') => {
                    self.at += 1;
                    sign == b'-'
                }
                _ => false,
            };
            let from = self.at;
            let mut size: u64 = 0;
            self.digits(&mut size);
            if !(1..=4).contains(&(self.at - from)) {
                return None;
            }
            exponent += if down { -(size as i64) } else { size as i64 };
        }
        let text = &self.text[start..self.at];
        if integer && minus && mantissa == 0 {
            return None; // -0 is an integer and has no sign to the twin
        }
        let value = if many <= 19 && mantissa <= EXACT && (-22..=22).contains(&exponent) {
            // Both factors are exact, so the one operation rounds once (Clinger 1990).
            let whole = mantissa as f64;
            let size = if exponent < 0 {
                whole / POWERS[exponent.unsigned_abs() as usize]
            } else {
                whole * POWERS[exponent as usize]
            };
            if minus { -size } else { size }
        } else {
            std::str::from_utf8(text).ok()?.parse::<f64>().ok()?
        };
        value.is_finite().then_some(Number { value, integer: integer.then_some(text) })
    }

    /// Digits into a number that means nothing past 19 of them.
    #[inline]
    fn digits(&mut self, into: &mut u64) {
        let rest = &self.text[self.at..];
        let mut number = *into;
        let mut many = 0;
        for byte in rest {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                break;
            }
            number = number.wrapping_mul(10).wrapping_add(u64::from(digit));
            many += 1;
        }
        *into = number;
        self.at += many;
    }

    /// A value of any kind, read over; if it has brackets, they are the depth-th.
    pub fn skip(&mut self, depth: usize) -> Option<()> {
        match self.next_token()? {
            b'"' => self.skip_string(),
            b'{' => self.skip_many(depth, b'}', |json| {
                json.next_token()?;
                json.skip_string()?;
                json.take(b':')?;
                json.skip(depth + 1)
            }),
            b'[' => self.skip_many(depth, b']', |json| json.skip(depth + 1)),
            b't' => self.word(b"true"),
            b'f' => self.word(b"false"),
            b'n' => self.word(b"null"),
            _ => self.number().map(|_| ()),
        }
    }

    /// Past an opening bracket.
    #[inline]
    pub fn enter(&mut self, depth: usize) -> Option<()> {
        let bracket = matches!(self.next_token()?, b'[' | b'{') && depth <= self.depth;
        bracket.then(|| self.at += 1)
    }

    fn skip_many(&mut self, depth: usize, end: u8, mut one: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.enter(depth)?;
        if self.next_token()? == end {
            self.at += 1;
            return Some(());
        }
        loop {
            one(self)?;
            match self.next_token()? {
                b',' => self.at += 1,
                token if token == end => {
                    self.at += 1;
                    return Some(());
                }
                _ => return None,
            }
        }
    }

    fn skip_string(&mut self) -> Option<()> {
        if self.peek()? != b'"' {
            return None;
        }
        self.at += 1;
        loop {
            let byte = self.peek()?;
            self.at += 1;
            match byte {
                b'"' => return Some(()),
                b'\\' => self.skip_escape()?,
                0..=0x1f => return None,
                _ => {}
            }
        }
    }

    fn skip_escape(&mut self) -> Option<()> {
        let kind = self.peek()?;
        self.at += 1;
        match kind {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(()),
            b'u' => {
                let hex = self.text.get(self.at..self.at + 4)?;
                let code = hex.iter().try_fold(0_u32, |sum, &byte| Some(sum * 16 + char::from(byte).to_digit(16)?))?;
                self.at += 4;
                (!(0xd800..0xe000).contains(&code)).then_some(()) // halves of a pair must match: the twin sees to it
            }
            _ => None,
        }
    }
}
