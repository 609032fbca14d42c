//! Dropout. Srivastava et al. 2014, <https://jmlr.org/papers/v15/srivastava14a.html>.

use crate::autograd::{Op, Saved, Tape, Var};
#[cfg(feature = "cuda")]
use crate::cuda::launch;
use crate::tensor::{Mask, Sequences, Tensor, alloc, on_device};
use crate::{Error, Result, dispatch};
use std::sync::Arc;

/// y = f ⊙ x; x `[T, d]`, packed. dx = f ⊙ dy.
///
/// A factor f is 0 with probability p, else 1/(1 − p), so that y is x on average. Factors are functions of counters (see [`Mask`]), so
/// nothing is saved: backward draws the same factors again.
pub struct Dropout {
    /// What is dropped.
    pub mask: Mask,
    /// Sequence boundaries of the packed batch.
    pub sequences: Arc<Sequences>,
}

/// The plain form, for the tests. The factors of a row depend on its example, and on its place in its own sequence.
#[cfg(test)]
fn plain(mask: &Mask, sequences: &Sequences, x: &[f64], d: usize) -> Vec<f64> {
    let factors = (0..sequences.tokens()).flat_map(|row| {
        let ((b, place), mut f) = (sequences.locate(row), vec![0.0; d]);
        mask.factors(sequences.example_ids()[b], place as u32, &mut f);
        f
    });
    factors.zip(x).map(|(f, x)| f * x).collect()
}

/// f ⊙ x.
pub(super) fn drop_rows(mask: &Mask, sequences: &Sequences, x: &Tensor) -> Result<Tensor> {
    on_device!(
        x,
        |device| launch::mask_rows(device, mask, sequences, x),
        dispatch!("dropout", x.dtype(), T => {
            let mut y = alloc::<T>(x.shape().len());
            mask.apply(sequences, x.shape().cols(), x.host::<T>()?, &mut y);
            Tensor::new(y, x.shape())
        })
    )
}

/// # Errors
/// If x does not have one row per packed token.
pub(super) fn check_rows(op: &'static str, x: &Tensor, sequences: &Sequences) -> Result<()> {
    match x.shape().rows() == sequences.tokens() {
        true => Ok(()),
        false => Err(Error::shape(op, "one row per packed token", &[x.shape(), &[sequences.tokens()].into()])),
    }
}

impl Op for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn forward(&self, inputs: &[&Tensor], _needs: &[bool], _saved: &mut Saved) -> Result<Tensor> {
        check_rows("dropout", inputs[0], &self.sequences)?;
        drop_rows(&self.mask, &self.sequences, inputs[0])
    }

    fn backward(&self, _saved: Saved, dy: Tensor, _needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(drop_rows(&self.mask, &self.sequences, &dy)?)])
    }
}

impl Tape<'_> {
    /// Dropout under `mask`, or `x` itself if there is none; see [`Dropout`].
    ///
    /// # Errors
    /// If `x` does not have one row per token.
    pub fn dropout(&mut self, x: &Var, mask: Option<Mask>, sequences: &Arc<Sequences>) -> Result<Var> {
        match mask {
            Some(mask) => self.apply(Dropout { mask, sequences: sequences.clone() }, &[x]),
            None => Ok(x.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::cases::random_sequences;
    use super::*;
    use crate::autograd::gradcheck::random_tensor;
    use crate::tensor::DType;
    use crate::tensor::philox::Stream;

    #[test]
    fn the_fast_form_is_the_plain_one() {
        let mut random = Stream::new(2, "plain");
        let (sequences, d) = (random_sequences(&mut random, 9).unwrap(), 37);
        let mask = Mask { p: 0.3, seed: 5, site: 2 };
        for (dtype, bound) in [(DType::F64, 0.0), (DType::F32, 1e-6), (DType::BF16, 1e-2)] {
            let x = random_tensor(&mut random, &[sequences.tokens(), d]).unwrap().to_dtype(dtype).unwrap();
            let wanted = plain(&mask, &sequences, &x.to_f64().unwrap(), d);
            let found = drop_rows(&mask, &sequences, &x).unwrap().to_f64().unwrap();
            assert!(found.iter().zip(wanted).all(|(a, b)| (a - b).abs() <= bound), "{dtype}");
        }
    }

    #[test]
    fn a_sequence_has_the_same_mask_at_every_place_in_the_batch() {
        let mask = Mask { p: 0.1, seed: 5, site: 2 };
        let cols = 37;
        let alone = Sequences::new(&[4], vec![11]).unwrap();
        let packed = Sequences::new(&[3, 4], vec![10, 11]).unwrap();
        let (mut a, mut b) = (vec![0f32; 4 * cols], vec![0f32; 7 * cols]);
        mask.apply(&alone, cols, &vec![1.0; a.len()], &mut a);
        mask.apply(&packed, cols, &vec![1.0; b.len()], &mut b);
        assert_eq!(a, b[3 * cols..]);
        assert_ne!(a[..cols], b[..cols]);
    }

    #[test]
    fn the_share_kept_and_the_mean_are_right() {
        let mut f = vec![0f64; 100_000];
        Mask { p: 0.1, seed: 1, site: 0 }.factors(0, 0, &mut f);
        let dropped = f.iter().filter(|&&f| f == 0.0).count() as f64 / f.len() as f64;
        assert!((dropped - 0.1).abs() < 0.005, "{dropped}");
        assert!(f.iter().all(|&f| f == 0.0 || f == 1.0 / 0.9));
    }
}
