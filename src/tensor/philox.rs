//! Philox 4x32-10, a counter-based random generator. Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section 4.3.
//!
//! Random words are a pure function of a key (the seed) and a counter, so a dropout mask is drawn again in backward instead of stored, and
//! it does not depend on packing, threads or device.

/// Key and counter give four random words.
#[inline(always)]
pub fn philox(seed: u64, mut counter: [u32; 4]) -> [u32; 4] {
    let mut key = [seed as u32, (seed >> 32) as u32];
    for _ in 0..10 {
        let p0 = u64::from(counter[0]) * 0xD251_1F53;
        let p1 = u64::from(counter[2]) * 0xCD9E_8D57;
        counter = [(p1 >> 32) as u32 ^ counter[1] ^ key[0], p1 as u32, (p0 >> 32) as u32 ^ counter[3] ^ key[1], p0 as u32];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

/// Writes `f(word)` to every element of `out`, where element j has word j % 4 of counter `[j / 4, rest..]`.
pub fn philox_row<T: Copy>(seed: u64, rest: [u32; 3], out: &mut [T], f: impl Fn(u32) -> T) {
    super::simd::dispatch(Row { seed, rest, out, f });
}

/// Most counters that are worked on at a time.
const LANES: usize = 64;

/// [`philox`] of the counters `first..`, the four words of each as two pairs. A loop over counters whose body has no branch, so that it
/// becomes vector code: a word is kept in 64 bits whose upper half is of no account, which is what the vector product takes.
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

struct Row<'a, T, F> {
    seed: u64,
    rest: [u32; 3],
    out: &'a mut [T],
    f: F,
}

impl<T: Copy, F: Fn(u32) -> T> super::simd::Kernel for Row<'_, T, F> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let Row { seed, rest, out, f } = self;
        let (mut pairs, mut words) = ([[0; 2]; LANES], [[0; 2]; 2 * LANES]);
        for (piece, out) in out.chunks_mut(4 * LANES).enumerate() {
            // Some more than are asked for: a loop over whole vectors has no remainder.
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

/// A sequence of random numbers for initialisation, sampling and shuffling. Each purpose has its own stream of the same seed.
#[derive(Clone, Debug)]
pub struct Stream {
    seed: u64,
    purpose: u32,
    next: u64,
    words: [u32; 4],
    used: usize,
}

impl Stream {
    /// The stream of `purpose` (a text, hashed) under `seed`.
    pub fn new(seed: u64, purpose: &str) -> Stream {
        // FNV-1a: streams need only differ. Fowler, Noll & Vo, <https://www.rfc-editor.org/rfc/rfc9923>.
        let hash = purpose.bytes().fold(0x811C_9DC5_u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
        Stream { seed, purpose: hash, next: 0, words: [0; 4], used: 4 }
    }

    /// 32 random bits.
    pub fn word(&mut self) -> u32 {
        if self.used == 4 {
            // The last word of the counter sets these streams apart from every dropout mask: example ordinals stay below it.
            self.words = philox(self.seed, [self.next as u32, (self.next >> 32) as u32, self.purpose, u32::MAX]);
            self.next += 1;
            self.used = 0;
        }
        self.used += 1;
        self.words[self.used - 1]
    }

    /// Uniform in [0, 1), with 53 random bits.
    pub fn uniform(&mut self) -> f64 {
        let bits = (u64::from(self.word()) << 32) | u64::from(self.word());
        (bits >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Standard normal. Box & Muller 1958.
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (2.0 * std::f64::consts::PI * self.uniform()).cos()
    }

    /// Uniform in 0..n, without bias; 0 if `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        let n = n as u64;
        if n <= 1 {
            return 0;
        }
        let zone = u64::MAX - u64::MAX % n;
        loop {
            let x = (u64::from(self.word()) << 32) | u64::from(self.word());
            if x < zone {
                return (x % n) as usize;
            }
        }
    }

    /// Shuffles in place. Fisher & Yates, as in Knuth, TAOCP vol. 2, algorithm 3.4.2 P.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The known answers published with Random123, the authors' library.
    #[test]
    fn philox_gives_the_published_answers() {
        assert_eq!(philox(0, [0; 4]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox(u64::MAX, [u32::MAX; 4]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let pi = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        assert_eq!(philox(0x299f_31d0_a409_3822, pi), [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    }

    #[test]
    fn a_row_is_made_of_single_draws() {
        let mut row = [0u32; 601];
        philox_row(9, [1, 2, 3], &mut row, |word| word);
        for (j, &word) in row.iter().enumerate() {
            assert_eq!(word, philox(9, [j as u32 / 4, 1, 2, 3])[j % 4]);
        }
    }

    #[test]
    fn streams_have_the_moments_they_should() {
        let mut s = Stream::new(7, "test");
        let n = 200_000;
        let normal: Vec<f64> = (0..n).map(|_| s.normal()).collect();
        let mean = normal.iter().sum::<f64>() / n as f64;
        let var = normal.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n as f64;
        assert!(mean.abs() < 0.01 && (var - 1.0).abs() < 0.02, "{mean} {var}");
        let uniform = (0..n).map(|_| s.uniform()).sum::<f64>() / n as f64;
        assert!((uniform - 0.5).abs() < 0.005, "{uniform}");
        assert_ne!(Stream::new(7, "a").word(), Stream::new(7, "b").word());
        let mut items: Vec<usize> = (0..100).collect();
        s.shuffle(&mut items);
        assert!(items != (0..100).collect::<Vec<_>>());
        items.sort();
        assert!(items == (0..100).collect::<Vec<_>>());
    }
}
