//! Comparison of an op with its plain form.

use crate::autograd::gradcheck::random_tensor;
use crate::autograd::{Op, Saved};
use crate::tensor::philox::Stream;
use crate::tensor::{Tensor, math};

/// |found − wanted| ≤ 1e-12 (1 + the largest |wanted|).
pub(super) fn assert_close(found: &Tensor, wanted: &Tensor) {
    assert_eq!(found.shape(), wanted.shape());
    let (found, wanted) = (found.to_f64().unwrap(), wanted.to_f64().unwrap());
    let bound = 1e-12 * (1.0 + math::largest(wanted.iter().map(|x| x.abs())));
    for (i, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
        assert!((found - wanted).abs() <= bound, "element {i}: {found}, not {wanted}");
    }
}

/// Compares the value and all gradients of `op` in f64 with those that `plain(inputs, dy)` returns, under several patterns of needs.
pub(super) fn check_plain(
    op: &dyn Op,
    inputs: &[Tensor],
    random: &mut Stream,
    plain: impl Fn(&[&Tensor], &Tensor) -> (Tensor, Vec<Tensor>),
) {
    let inputs: Vec<&Tensor> = inputs.iter().collect();
    let forward = |needs: &[bool], saved: &mut Saved| op.forward(&inputs, needs, saved).unwrap();
    let dy = random_tensor(random, forward(&vec![false; inputs.len()], &mut Saved::default()).dims()).unwrap();
    let (y, grads) = plain(&inputs, &dy);
    assert_eq!(grads.len(), inputs.len());
    for pattern in 0..6 {
        let needs: Vec<bool> = inputs.iter().map(|_| pattern == 0 || random.below(2) == 0).collect();
        let mut saved = Saved::default();
        assert_close(&forward(&needs, &mut saved), &y);
        if needs.contains(&true) {
            let found = op.backward(saved, dy.clone(), &needs).unwrap();
            assert_eq!(found.iter().map(Option::is_some).collect::<Vec<_>>(), needs);
            found.iter().zip(&grads).for_each(|(found, wanted)| found.iter().for_each(|found| assert_close(found, wanted)));
        }
    }
}
