//! An op of your own, and its gradient check: the formula of y, and that of dy/dx. A type that is not elementwise implements `autograd::Op`.

use lowrank::{autograd::gradcheck, autograd::ops::Elementwise, tensor::Tensor};

/// y = ln(1 + eˣ), "softplus". dy/dx = 1 / (1 + e⁻ˣ).
struct Softplus;
impl Elementwise for Softplus {
    const NAME: &'static str = "softplus";
    fn f(&self, x: f64) -> f64 {
        (1.0 + x.exp()).ln()
    }
    fn df(&self, x: f64) -> f64 {
        1.0 / (1.0 + (-x).exp())
    }
}

fn main() {
    println!("{:?}", gradcheck::check(|tape, x| tape.apply(Softplus, x), &[Tensor::new(vec![0.5, -1.5], [2]).unwrap()]));
}
