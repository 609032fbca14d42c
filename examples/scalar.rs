//! Reverse mode on scalars, in the spirit of micrograd: an expression, its value, and what each input does to it.

use lowrank::autograd::{Op, Parameter, Saved, Tape, gradcheck};
use lowrank::tensor::{Tensor, philox::Stream};
use std::rc::Rc;

/// y = x³, elementwise: an op of one's own needs a forward and a backward, side by side.
struct Cube;

impl Op for Cube {
    fn name(&self) -> &'static str {
        "cube"
    }
    fn forward(&self, inputs: &[&Tensor], needs: &[bool], saved: &mut Saved) -> lowrank::Result<Tensor> {
        saved.keep_if(needs[0], "x", inputs[0]);
        Tensor::new(inputs[0].host::<f64>()?.iter().map(|x| x * x * x).collect::<Vec<_>>(), inputs[0].shape())
    }
    fn backward(&self, mut saved: Saved, dy: Tensor, _needs: &[bool]) -> lowrank::Result<Vec<Option<Tensor>>> {
        let x = saved.take("x")?;
        let dx: Vec<f64> = x.host::<f64>()?.iter().zip(dy.host::<f64>()?).map(|(x, dy)| 3.0 * x * x * dy).collect();
        Ok(vec![Some(Tensor::new(dx, x.shape())?)])
    }
}

fn main() -> lowrank::Result<()> {
    let number = |name: &str, x: f64| Ok::<_, lowrank::Error>(Parameter::new(name, Tensor::new(vec![x], [1])?));
    let (x, w, b) = (number("x", 2.0)?, number("w", -3.0)?, number("b", 6.7)?);

    // y = tanh(w x + b)³ + relu(x w)  (the relu is shut: it adds nothing, and lets no gradient through)
    let mut tape = Tape::new();
    let (xv, wv, bv) = (tape.parameter(&x), tape.parameter(&w), tape.parameter(&b));
    let product = tape.mul(&wv, &xv)?;
    let sum = tape.add(&product, &bv)?;
    let neuron = tape.tanh(&sum)?;
    let cube = tape.apply(Cube, &[&neuron])?;
    let shut = tape.relu(&product)?;
    let total = tape.add(&cube, &shut)?;
    let y = tape.sum(&total)?;
    println!("y = {:.4}", y.value().item()?);
    let grads = tape.backward(&y)?;
    for p in [&x, &w, &b] {
        let slope = grads.get(p).map(Tensor::item).transpose()?.unwrap_or(0.0);
        println!("dy/d{} = {slope:.4}", p.name());
    }

    let found = gradcheck::check(Rc::new(Cube), &[Tensor::new(vec![0.5, -1.5], [2])?], &[true], &mut Stream::new(0, "cube"))?;
    println!("cube's backward is off by {:.0e} from finite differences", found.error);
    Ok(())
}
