//! A frozen linear with a low-rank term learns a change of rank 2 of its weight.

use lowrank::autograd::Tape;
use lowrank::nn::{Linear, LowRank, Pass, Weight};
use lowrank::tensor::{DType, Sequences, Tensor, philox::Stream};
use lowrank::train::AdamW;
use std::sync::Arc;

fn main() -> lowrank::Result<()> {
    let (input, output, rank, rows) = (12, 10, 2, 64);
    let mut random = Stream::new(0, "toy");
    let mut normal = |dims: [usize; 2]| Tensor::from_f64((0..dims[0] * dims[1]).map(|_| random.normal()).collect(), DType::F32, dims);
    let w0 = normal([output, input])?;
    // What is to be learnt: x (W₀ + B* A*)ᵀ.
    let (a_star, b_star, x) = (normal([rank, input])?, normal([output, rank])?, normal([rows, input])?);
    let term = |a: Tensor, b: Tensor| LowRank { a: Weight::trained("A", a), b: Weight::trained("B", b), scale: 1.0, dropout: 0.0 };
    let w = || Weight::frozen("W", w0.clone());
    let linear = |term| Linear { terms: vec![term], ..Linear::new("toy", w(), None, 0) };
    let pass = Pass::evaluation(Arc::new(Sequences::new(&[rows], vec![0])?));
    let teacher = linear(term(a_star, b_star));
    let target = teacher.forward(&mut Tape::new(), &pass, &Tape::new().constant(&x))?.value().clone();

    let mut student = linear(term(normal([rank, input])?, Tensor::zeros(DType::F32, [output, rank])));
    let mut adamw = AdamW::new(0.0);
    for step in 0..=400 {
        let mut tape = Tape::new();
        let (x, target) = (tape.constant(&x), tape.constant(&target));
        let y = student.forward(&mut tape, &pass, &x)?;
        let minus = tape.scale(&target, -1.0)?;
        let error = tape.add(&y, &minus)?;
        let square = tape.mul(&error, &error)?;
        let sum = tape.sum(&square)?;
        let loss = tape.scale(&sum, 1.0 / (rows * output) as f64)?;
        if step % 100 == 0 {
            println!("step {step:>3}: mean squared error {:.6}", loss.value().item()?);
        }
        let grads = tape.backward(&loss)?;
        let LowRank { a, b, .. } = &mut student.terms[0];
        let mut trained: Vec<_> = [a, b].into_iter().flat_map(Weight::parameter_mut).collect();
        adamw.update(&mut trained, grads, 0.05, f64::INFINITY)?;
    }
    Ok(())
}
