//! The random words of a whole row, in vector code. The numbers are those of [`philox`](super::philox::philox()).

use super::simd;

/// `out[j] = f(word)`, where word is number j mod 4 of `philox(seed, [j / 4, rest…])`.
pub fn philox_row<T: Copy>(seed: u64, rest: [u32; 3], out: &mut [T], f: impl Fn(u32) -> T) {
    simd::dispatch(Row { seed, rest, out, f });
}

/// Counters that are computed together.
const LANES: usize = 64;

/// `philox(seed, [c, rest…])` for the counters c = `first`, `first` + 1, … The four words of each are two pairs, low word first.
///
/// The loop over counters has no branch, so it becomes vector code. A word is in the lower half of 64 bits, as the vector multiplication reads
/// it; the upper half is ignored.
#[inline(always)]
fn philox_lanes(seed: u64, first: u32, rest: [u32; 3], out: &mut [[u64; 2]]) {
    let low = u64::from(u32::MAX);
    let [r1, r2, r3] = rest.map(u64::from);
    for (lane, out) in out.iter_mut().enumerate() {
        let mut key = [seed & low, seed >> 32];
        let mut c = [u64::from(first) + lane as u64, r1, r2, r3];
        for _ in 0..10 {
            let p0 = (c[0] & low) * 0xD251_1F53;
            let p1 = (c[2] & low) * 0xCD9E_8D57;
            c = [(p1 >> 32) ^ c[1] ^ key[0], p1, (p0 >> 32) ^ c[3] ^ key[1], p0];
            key = [(key[0] + 0x9E37_79B9) & low, (key[1] + 0xBB67_AE85) & low];
        }
        *out = [(c[0] & low) | (c[1] << 32), (c[2] & low) | (c[3] << 32)];
    }
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
        let (mut pairs, mut words) = ([[0; 2]; LANES], [[0; 2]; 2 * LANES]);
        for (piece, out) in out.chunks_mut(4 * LANES).enumerate() {
            // A few more counters than needed, so that the loop has whole vectors only.
            let pairs = &mut pairs[..out.len().div_ceil(4).next_multiple_of(8)];
            philox_lanes(seed, (piece * LANES) as u32, rest, pairs);
            // Two loops, each of which becomes vector code.
            for (words, &pair) in words.iter_mut().zip(pairs.as_flattened()) {
                *words = [pair as u32, (pair >> 32) as u32];
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
