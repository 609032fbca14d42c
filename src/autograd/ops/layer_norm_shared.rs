//! What the three ops with a layer norm share: [`super::LayerNorm`], [`super::ResidualLayerNorm`] and [`super::EmbeddingLayerNorm`].

use super::dropout::drop_rows;
use super::layer_norm_fast as fast;
use crate::autograd::{Saved, accumulate};
#[cfg(feature = "cuda")]
use crate::cuda::launch;
use crate::tensor::{Mask, NormRows, Sequences, Tensor, on_device};
use crate::{Result, dispatch};

/// y = ŝ ⊙ γ + β for rows s, and dropout of y if the rows are embeddings. Saves ŝ (as "x_hat"), rstd and γ where backward reads them. `op`
/// is the caller's name, for errors.
pub(super) fn forward(
    op: &'static str,
    rows: &NormRows,
    [gamma, beta]: [&Tensor; 2],
    eps: f64,
    [s_trains, gamma_trains]: [bool; 2],
    saved: &mut Saved,
) -> Result<Tensor> {
    // Whether backward reads x̂ `[n, d]`, and whether it reads rstd `[n]`.
    let keep = [s_trains || gamma_trains, s_trains];
    let dtype = match rows {
        NormRows::Sublayer { x, .. } => x.dtype(),
        NormRows::Embeddings { dtype, .. } => *dtype,
    };
    let (y, x_hat, rstd) = on_device!(
        gamma,
        |device| launch::layer_norm(device, rows, [gamma, beta], eps, keep),
        dispatch!(op, dtype, T => fast::forward::<T>(op, rows, [gamma, beta], eps, keep))
    )?;
    // On a GPU, the kernel has dropped already.
    let y = match rows {
        NormRows::Embeddings { mask: Some(mask), sequences, .. } => on_device!(y, |_device| Ok(y), drop_rows(mask, sequences, &y))?,
        _ => y,
    };
    x_hat.iter().for_each(|x_hat| saved.keep("x_hat", x_hat));
    if let Some(rstd) = &rstd {
        saved.keep("rstd", rstd);
        saved.keep("gamma", gamma);
    }
    Ok(y)
}

/// Gradients, where they are needed: ds and f ⊙ ds, f the factors of a dropout (1 without one), and dγ and dβ.
pub(super) type Gradients = ([Option<Tensor>; 2], [Option<Tensor>; 2]);

/// Dropout under a mask of the rows of packed sequences.
pub(super) type Drop<'a> = Option<(&'a Mask, &'a Sequences)>;

/// The gradients for the same three ops. With `more`, the cotangent of y is dy + `more`: two ops read y.
pub(super) fn backward(
    op: &'static str,
    mut saved: Saved,
    mut dy: Tensor,
    more: Option<Tensor>,
    drop: Drop,
    needs: ([bool; 2], [bool; 2]),
) -> Result<Gradients> {
    let (needs_s, needs_weights) = needs;
    let needs_any_s = needs_s.contains(&true);
    // Only a GPU's kernel for ds adds the two on the way.
    let more = match more {
        Some(more) if dy.on_host() || !needs_any_s || needs_weights.contains(&true) => {
            dy = accumulate(Some(dy), more)?;
            None
        }
        other => other,
    };
    let x_hat = saved.take_if(needs_any_s || needs_weights[0], "x_hat")?;
    let rstd_gamma = if needs_any_s { Some([saved.take("rstd")?, saved.take("gamma")?]) } else { None };
    let _ = &more; // Without the feature "cuda", nothing reads it.
    let ([ds, dropped], weights) = on_device!(
        dy,
        |device| {
            let weights = launch::layer_norm_weights(device, &dy, x_hat.as_ref(), needs_weights)?;
            let (Some([rstd, gamma]), Some(h)) = (&rstd_gamma, &x_hat) else { return Ok(([None, None], weights)) };
            let x = launch::NormCotangent { dy: &dy, more: more.as_ref(), h, rstd, gamma };
            let needs = [needs_s[0] || drop.is_none(), needs_s[1] && drop.is_some()];
            (launch::layer_norm_backward(device, &x, drop, needs)?, weights)
        },
        {
            let [ds, dgamma, dbeta] =
                dispatch!(op, dy.dtype(), T => fast::backward::<T>(dy, x_hat.as_ref(), rstd_gamma.as_ref(), needs_weights))?;
            let dropped = match (&ds, drop) {
                (Some(ds), Some((mask, sequences))) if needs_s[1] => Some(drop_rows(mask, sequences, ds)?),
                _ => None,
            };
            ([ds, dropped], [dgamma, dbeta])
        }
    );
    // Without a dropout, f ⊙ ds is ds itself.
    let dropped = if drop.is_some() { dropped } else { ds.clone() };
    Ok(([ds.filter(|_| needs_s[0]), dropped.filter(|_| needs_s[1])], weights))
}
