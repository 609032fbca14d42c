//! Philox 4x32-10, a counter-based random generator. Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section 4.3,
//! <https://doi.org/10.1145/2063384.2063405>.
//!
//! An ordinary generator has a state, and each number depends on all numbers drawn before. Here, random words are a function of a key (the
//! seed) and a counter. Any part of a dropout mask can be drawn at any time, in any order, by any thread: backward can draw it again. The
//! counter of a mask (`mask.rs`) is `[column / 4, row, site, example]`: its four words are for four columns. Site: which dropout of the
//! model. Example: which text in which epoch. The counter of a [`Stream`] is `[count, count, purpose, u32::MAX]`: the count has 64 bits,
//! low word first.

/// The two factors of a round.
pub(super) const FACTORS: [u64; 2] = [0xD251_1F53, 0xCD9E_8D57];

/// The two keys of each of the ten rounds.
#[inline(always)]
pub fn round_keys(seed: u64) -> [[u32; 2]; 10] {
    std::array::from_fn(|round| {
        let times = |step: u32| step.wrapping_mul(round as u32);
        [(seed as u32).wrapping_add(times(0x9E37_79B9)), ((seed >> 32) as u32).wrapping_add(times(0xBB67_AE85))]
    })
}

/// Four random words from a key and a counter: ten rounds of two multiplications, whose upper and lower halves are mixed.
#[inline(always)]
pub fn philox(seed: u64, mut counter: [u32; 4]) -> [u32; 4] {
    for key in round_keys(seed) {
        let p0 = u64::from(counter[0]) * FACTORS[0];
        let p1 = u64::from(counter[2]) * FACTORS[1];
        counter = [(p1 >> 32) as u32 ^ counter[1] ^ key[0], p1 as u32, (p0 >> 32) as u32 ^ counter[3] ^ key[1], p0 as u32];
    }
    counter
}

/// A sequence of random numbers, for initialisation, sampling and shuffling. Each purpose has its own stream of the same seed. (It is
/// hashed to 32 bits: among 900 purposes, the chance that two share a stream is below 1 in 10,000.)
#[derive(Clone, Debug)]
pub struct Stream {
    seed: u64,
    purpose: u32,
    /// The next counter.
    next: u64,
    /// The words of the last counter, and how many of them were given out.
    words: [u32; 4],
    used: usize,
}

impl Stream {
    /// The stream of `purpose` (a text, hashed) under `seed`.
    pub fn new(seed: u64, purpose: &str) -> Stream {
        // FNV-1a hashes the text. Fowler, Noll & Vo, <https://www.rfc-editor.org/rfc/rfc9923>.
        let hash = purpose.bytes().fold(0x811C_9DC5_u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
        Stream { seed, purpose: hash, next: 0, words: [0; 4], used: 4 }
    }

    /// 32 random bits.
    pub fn word(&mut self) -> u32 {
        if self.used == 4 {
            // The last word keeps streams apart from dropout masks, whose last word is an example number below u32::MAX.
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

    /// Standard normal: mean 0, variance 1. Box & Muller 1958.
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (2.0 * std::f64::consts::PI * self.uniform()).cos()
    }

    /// Uniform in 0..n; 0 if `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        let n = n as u64;
        if n <= 1 {
            return 0;
        }
        // Words from the last, incomplete multiple of n on are drawn again: they would favour small results.
        let zone = u64::MAX - u64::MAX % n;
        loop {
            let x = (u64::from(self.word()) << 32) | u64::from(self.word());
            if x < zone {
                return (x % n) as usize;
            }
        }
    }

    /// Shuffles in place. Fisher & Yates; Knuth, TAOCP vol. 2, algorithm 3.4.2 P.
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
