//! The random words of a few columns of many rows, in vector code. The numbers are those of [`philox`](super::philox::philox()).
//!
//! A counter is `[column / 4, row, site, example]`. Along a row only the first word changes: that is `philox_row.rs`. Down the rows only the second
//! one does, which is cheaper. The counter of a row joins the others late, so most of the first three rounds is the same for all rows, or the
//! same for all columns.

use super::philox::{FACTORS, round_keys};

/// Rows that are computed together.
const LANES: usize = 48;

/// Draws for rows that follow each other.
pub(super) struct Columns {
    keys: [[u64; 2]; 10],
    /// The third word of the counter times its factor in round 1.
    site: u64,
    /// The fourth word.
    example: u64,
    /// The first product of round 2 for each row.
    rows: Vec<[u64; LANES]>,
}

/// The lower half of 64 bits.
const LOW: u64 = u32::MAX as u64;

impl Columns {
    /// For `rows` rows from `first` on, and the counters `[.., row, rest…]`.
    pub fn new(seed: u64, first: u32, rows: usize, rest: [u32; 2]) -> Columns {
        let keys = round_keys(seed).map(|pair| pair.map(u64::from));
        let site = u64::from(rest[0]) * FACTORS[1];
        let product = |row: u32| (((site >> 32) ^ u64::from(row) ^ keys[0][0]) & LOW) * FACTORS[0];
        let lanes = |group: usize| std::array::from_fn(|l| product(first.wrapping_add((group * LANES + l) as u32)));
        Columns { keys, site: site & LOW, example: rest[1].into(), rows: (0..rows.div_ceil(LANES)).map(lanes).collect() }
    }

    /// `to[w][r] = f(word)`, where word is number w of `philox(seed, [counter, row r, rest…])`.
    #[inline(always)]
    pub fn draw<T: Copy>(&self, counter: u32, to: [&mut [T]; 4], f: impl Fn(u32) -> T) {
        let [to0, to1, to2, to3] = to;
        for (group, rows) in self.rows.iter().enumerate() {
            let [words0, words1, words2, words3] = self.words(counter, rows);
            put(&words0, &mut to0[group * LANES..], &f);
            put(&words1, &mut to1[group * LANES..], &f);
            put(&words2, &mut to2[group * LANES..], &f);
            put(&words3, &mut to3[group * LANES..], &f);
        }
    }

    /// The four words for each row of a group. A word is in the lower half of 64 bits, as the vector multiplication reads it; the upper half is
    /// ignored.
    #[inline(always)]
    fn words(&self, counter: u32, rows: &[u64; LANES]) -> [[u64; LANES]; 4] {
        let Columns { keys, site, example, .. } = self;
        // Rounds 1 to 3 for what is the same in all rows: after round 1 that is all but the first word, after round 2 the first and second.
        let product = u64::from(counter) * FACTORS[0];
        let (c2, c3) = ((product >> 32) ^ example ^ keys[0][1], product & LOW);
        let product = c2 * FACTORS[1];
        let (c0, c1) = ((product >> 32) ^ site ^ keys[1][0], product & LOW);
        let third = c0 * FACTORS[0];
        let joined = [c3 ^ keys[1][1], c1 ^ keys[2][0], (third >> 32) ^ keys[2][1]];
        let [mut c0, mut c1, mut c2, mut c3] = [[0; LANES]; 4];
        for l in 0..LANES {
            let product = (((rows[l] >> 32) ^ joined[0]) & LOW) * FACTORS[1];
            (c0[l], c1[l], c2[l], c3[l]) = ((product >> 32) ^ joined[1], product, rows[l] ^ joined[2], third & LOW);
        }
        for key in &keys[3..] {
            for l in 0..LANES {
                let p0 = (c0[l] & LOW) * FACTORS[0];
                let p1 = (c2[l] & LOW) * FACTORS[1];
                (c0[l], c2[l]) = ((p1 >> 32) ^ c1[l] ^ key[0], (p0 >> 32) ^ c3[l] ^ key[1]);
                (c1[l], c3[l]) = (p1, p0);
            }
        }
        [c0, c1, c2, c3]
    }
}

/// `to[i] = f(word)` for the lower half of each word, until `to` is full. As a function of its own this loop becomes vector code.
#[inline(always)]
fn put<T: Copy>(words: &[u64; LANES], to: &mut [T], f: impl Fn(u32) -> T) {
    for (to, &word) in to.iter_mut().zip(words) {
        *to = f(word as u32);
    }
}

#[cfg(test)]
mod tests {
    use super::super::philox::philox;
    use super::*;

    #[test]
    fn columns_are_made_of_single_draws() {
        for (seed, first, rest, counter) in [(9 << 40 | 7, 3, [2, 3], 0), (u64::MAX, u32::MAX - 20, [u32::MAX; 2], u32::MAX)] {
            let mut words = [[0u32; 37]; 4];
            let [a, b, c, d] = &mut words;
            Columns::new(seed, first, 37, rest).draw(counter, [a, b, c, d], |word| word);
            for (w, words) in words.iter().enumerate() {
                for (r, &word) in words.iter().enumerate() {
                    assert_eq!(word, philox(seed, [counter, first.wrapping_add(r as u32), rest[0], rest[1]])[w], "{seed} {w} {r}");
                }
            }
        }
    }
}
