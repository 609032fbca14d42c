//! Reverse mode on scalars, in the spirit of micrograd: an expression, its value, and its derivative by each input.

use lowrank::autograd::{Parameter, Tape};
use lowrank::tensor::Tensor;

fn main() -> lowrank::Result<()> {
    let number = |name: &str, x: f64| Ok::<_, lowrank::Error>(Parameter::new(name, Tensor::new(vec![x], [1])?));
    let (x, w, b) = (number("x", 2.0)?, number("w", -3.0)?, number("b", 6.7)?);

    // y = tanh(w x + b) + relu(w x). As w x < 0, the relu adds nothing, and lets no gradient through.
    let mut tape = Tape::new();
    let (xv, wv, bv) = (tape.parameter(&x), tape.parameter(&w), tape.parameter(&b));
    let product = tape.mul(&wv, &xv)?;
    let sum = tape.add(&product, &bv)?;
    let neuron = tape.tanh(&sum)?;
    let shut = tape.relu(&product)?;
    let y = tape.add(&neuron, &shut)?;
    println!("y = {:.4}", y.value().item()?);

    let grads = tape.backward(&y)?;
    for p in [&x, &w, &b] {
        let slope = grads.get(p).map(Tensor::item).transpose()?.unwrap_or(0.0);
        println!("dy/d{} = {slope:.4}", p.name());
    }
    Ok(())
}
