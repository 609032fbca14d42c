//! The probabilities of attention, for those who want to look at them.

use super::attention::{Attention, probabilities};
use crate::Result;
use crate::tensor::{DType, Tensor};

impl Attention {
    /// P of every sequence and head without dropout, in f64: `[nq][nk]` for each head of each sequence. The extra keys come first. Attention itself
    /// never holds P as a whole. This computes it again, for those who want to look at it.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn probabilities(&self, inputs: &[&Tensor]) -> Result<Vec<Vec<Vec<f64>>>> {
        let inputs = inputs.iter().map(|t| t.to_host()?.to_dtype(DType::F64)).collect::<Result<Vec<_>>>()?;
        let ([q, k, _], all_keys) = self.split(&inputs.iter().collect::<Vec<_>>())?.joined::<f64>()?;
        let (d, width) = (q.shape().cols(), q.shape().cols() / self.heads);
        let (q, k, scale) = (q.host::<f64>()?, k.host::<f64>()?, (width as f64).sqrt().recip());
        let of_head = |(b, head): (usize, usize)| {
            let at = |i: usize| i * d + head * width..i * d + (head + 1) * width;
            self.queries.range(b).map(|i| probabilities(&q[at(i)], all_keys.range(b).map(|j| &k[at(j)]), scale)).collect()
        };
        Ok((0..all_keys.count()).flat_map(|b| (0..self.heads).map(move |head| (b, head))).map(of_head).collect())
    }
}
