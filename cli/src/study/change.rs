//! The change of the weights by fine-tuning: ΔW = W − W₀ of each linear, and its singular values.

use super::figure::Heat;
use lowrank::nn::DistilBert;
use lowrank::tensor::gemm::{Mat, gemm};
use lowrank::tensor::svd::svd;
use lowrank::{Error, Result};

/// ΔW of a linear.
pub struct Change {
    /// Name of the linear.
    pub name: String,
    /// `[out, in]`.
    pub dims: (usize, usize),
    /// ΔW in row-major order.
    pub delta: Vec<f64>,
}

impl Change {
    /// The changes W − W₀ + Σ s B A of all linears inside layers that `tuned` changed.
    ///
    /// # Errors
    /// If a weight of either model is computed, or a change is not finite.
    pub fn of(base: &mut DistilBert, tuned: &mut DistilBert) -> Result<Vec<Change>> {
        let mut changes = Vec::new();
        for (old, new) in base.linears_mut().into_iter().zip(tuned.linears_mut()).filter(|(old, _)| old.name.contains(".layer.")) {
            let dims = new.dims();
            let before = old.weight.value()?.to_f64()?;
            let mut delta: Vec<f64> = new.weight.value()?.to_f64()?.iter().zip(&before).map(|(new, old)| new - old).collect();
            for term in &new.terms {
                let b: Vec<f64> = term.b.value()?.to_f64()?.iter().map(|b| term.scale * b).collect();
                let (a, rank) = (term.a.value()?.to_f64()?, term.rank());
                gemm(Mat::new(&b, dims.0, rank), Mat::new(&a, rank, dims.1), &mut delta, dims.1, true);
            }
            if delta.iter().any(|x| !x.is_finite()) {
                return Err(Error::invalid(format!("{}: what training changed of it is not finite", new.name)));
            }
            if delta.iter().any(|x| *x != 0.0) {
                changes.push(Change { name: new.name.clone(), dims, delta });
            }
        }
        Ok(changes)
    }

    /// The singular values, descending.
    pub fn singular_values(&self) -> Vec<f64> {
        svd(&self.delta, self.dims.0, self.dims.1).s
    }

    /// Frobenius norm.
    pub fn norm(&self) -> f64 {
        self.delta.iter().map(|x| x * x).sum::<f64>().sqrt()
    }

    /// Short form of the name: `layer 0 q_lin` for `layer.0.attention.q_lin`.
    pub fn short_name(&self) -> String {
        let rest = self.name.split_once(".layer.").map_or(&*self.name, |(_, rest)| rest);
        let layer = rest.split('.').next().unwrap_or_default();
        format!("layer {layer} {}", rest.rsplit('.').next().unwrap_or_default())
    }

    /// A map with the root mean square of ΔW in each cell of a grid of at most `most` × `most` cells.
    pub fn pooled(&self, most: usize) -> Heat {
        let (rows, cols) = (self.dims.0.min(most), self.dims.1.min(most));
        let (mut sums, mut counts) = (vec![0.0; rows * cols], vec![0usize; rows * cols]);
        for (i, row) in self.delta.chunks_exact(self.dims.1.max(1)).enumerate() {
            for (j, x) in row.iter().enumerate() {
                let cell = i * rows / self.dims.0 * cols + j * cols / self.dims.1;
                sums[cell] += x * x;
                counts[cell] += 1;
            }
        }
        let values = sums.iter().zip(counts).map(|(sum, n)| (sum / n.max(1) as f64).sqrt()).collect();
        Heat { name: self.short_name(), rows, cols, values }
    }
}

/// The number of largest singular values whose squares sum to at least `share` of all squares.
pub fn rank_of(singular_values: &[f64], share: f64) -> usize {
    let whole: f64 = singular_values.iter().map(|s| s * s).sum();
    let mut sum = 0.0;
    let reached = singular_values.iter().position(|s| {
        sum += s * s;
        sum >= share * whole
    });
    reached.map_or(0, |i| i + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lowrank::lora::{LoraConfig, adapt};
    use lowrank::nn::Config;
    use lowrank::tensor::philox::Stream;
    use lowrank::tensor::{DType, Tensor};

    #[test]
    fn a_low_rank_term_changes_as_many_directions_as_it_has_ranks() {
        let mut config = Config::distilbert_base();
        (config.dim, config.hidden_dim, config.n_heads, config.n_layers, config.vocab_size) = (16, 24, 2, 2, 30);
        let mut base = DistilBert::random(&config, 2, DType::F64, 1).unwrap();
        let mut tuned = base.share(2).unwrap();
        adapt(&mut tuned, &LoraConfig::new(3, &["q_lin"]), 0).unwrap();
        assert!(Change::of(&mut base, &mut tuned).unwrap().is_empty(), "B is zero");
        let mut random = Stream::new(0, "b");
        for p in tuned.parameters_mut().into_iter().filter(|p| p.name().contains("lora_B")) {
            let values = (0..p.value().shape().len()).map(|_| random.normal()).collect();
            p.set(Tensor::from_f64(values, DType::F64, p.value().shape()).unwrap());
        }
        let changes = Change::of(&mut base, &mut tuned).unwrap();
        let names = [0, 1].map(|layer| format!("distilbert.transformer.layer.{layer}.attention.q_lin"));
        assert_eq!(changes.iter().map(|c| c.name.clone()).collect::<Vec<_>>(), names);
        let s = changes[0].singular_values();
        assert!(s[2] > 1e-3 && s[3] < 1e-12 * s[0], "{s:?}");
        assert_eq!(rank_of(&s, 1.0 - 1e-12), 3);
        let map = changes[0].pooled(5);
        assert_eq!((map.rows, map.cols, map.values.len()), (5, 5, 25));
        let whole = changes[0].pooled(1).values;
        assert!((whole[0] * 16.0 - changes[0].norm()).abs() < 1e-12);
    }
}
