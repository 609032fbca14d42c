//! The random words of a whole row, in vector code. The numbers are those of [`philox`](super::philox::philox()).

use super::philox::FACTORS;
use super::simd;

/// `out[j] = f(word)`, where word is number j mod 4 of `philox(seed, [j / 4, rest…])`.
pub fn philox_row<T: Copy>(seed: u64, rest: [u32; 3], out: &mut [T], f: impl Fn(u32) -> T) {
    simd::dispatch(Row { seed, rest, out, f });
}

/// Counters that are computed together.
const LANES: usize = 32;

/// `philox(seed, [c, rest…])` for the counters c = `first`, `first` + 1, … Word w of counter number l goes to `[w][l]`.
///
/// Each loop over counters has no branch, so it becomes vector code. A word is in the lower half of 64 bits, as the vector multiplication reads
/// it; the upper half is ignored.
#[inline(always)]
fn philox_lanes(seed: u64, first: u32, rest: [u32; 3]) -> [[u64; LANES]; 4] {
    let low = u64::from(u32::MAX);
    let mut key = [seed & low, seed >> 32];
    let [mut c0, mut c1, mut c2, mut c3] = [first, rest[0], rest[1], rest[2]].map(|word| [u64::from(word); LANES]);
    for (l, c0) in c0.iter_mut().enumerate() {
        *c0 += l as u64;
    }
    for _ in 0..10 {
        for l in 0..LANES {
            let p0 = (c0[l] & low) * FACTORS[0];
            let p1 = (c2[l] & low) * FACTORS[1];
            (c0[l], c2[l]) = ((p1 >> 32) ^ c1[l] ^ key[0], (p0 >> 32) ^ c3[l] ^ key[1]);
            (c1[l], c3[l]) = (p1, p0);
        }
        key = [(key[0] + 0x9E37_79B9) & low, (key[1] + 0xBB67_AE85) & low];
    }
    [c0, c1, c2, c3]
}

/// The arguments of [`philox_row`].
struct Row<'a, T, F> {
    seed: u64,
    rest: [u32; 3],
    out: &'a mut [T],
    f: F,
}

impl<T: Copy, F: Fn(u32) -> T> simd::Kernel for Row<'_, T, F> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let Row { seed, rest, out, f } = self;
        for (piece, out) in out.chunks_mut(4 * LANES).enumerate() {
            let found = philox_lanes(seed, (piece * LANES) as u32, rest);
            let mut words = [[0; 4]; LANES];
            for (l, words) in words.iter_mut().enumerate() {
                *words = [found[0][l] as u32, found[1][l] as u32, found[2][l] as u32, found[3][l] as u32];
            }
            for (out, &word) in out.iter_mut().zip(words.as_flattened()) {
                *out = f(word);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::philox::philox;
    use super::*;

    #[test]
    fn a_row_is_made_of_single_draws() {
        let mut row = [0u32; 601];
        philox_row(9, [1, 2, 3], &mut row, |word| word);
        for (j, &word) in row.iter().enumerate() {
            assert_eq!(word, philox(9, [j as u32 / 4, 1, 2, 3])[j % 4]);
        }
    }
}
