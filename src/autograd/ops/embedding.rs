//! Table lookup. A token's embedding is a row of a table.

use crate::autograd::{Op, Saved, Tape, Var};
#[cfg(feature = "cuda")]
use crate::cuda::launch;
use crate::tensor::gemm::Mat;
use crate::tensor::{DType, Scalar, Shape, Tensor, alloc, on_device, rows, zeroed};
use crate::{Error, Result, dispatch};

/// `y[t] = table[indices[t]]`; table `[V, d]`, indices u32 `[T]`, y `[T, d]`. `dtable[v]` = Σ `dy[t]` over all t with `indices[t] = v`.
///
/// The table keeps its own type: only the rows that are looked up are read, and rounded to y's type. So a table in a mapped file is not
/// copied.
pub struct Embedding {
    /// Type of y.
    pub dtype: DType,
}

impl Op for Embedding {
    fn name(&self) -> &'static str {
        "embedding"
    }

    fn forward(&self, inputs: &[&Tensor], needs: &[bool], saved: &mut Saved) -> Result<Tensor> {
        let &[table, indices] = inputs else { return Err(Error::invalid("embedding: takes a table and indices")) };
        let (index, d) = (check(table, indices)?, table.shape().cols());
        // For its shape alone. The table is the model's own, so it costs nothing.
        saved.keep_if(needs[0], "table", table);
        saved.keep_if(needs[0], "indices", indices);
        on_device!(
            table,
            |device| launch::look_up(device, table, indices, self.dtype),
            dispatch!("embedding", self.dtype, T => {
                let table = Mat::<<T as Scalar>::Acc>::of(table)?;
                let mut y = alloc::<T>(index.len() * d);
                rows::for_each(&mut y, d, |first, y| {
                    for (y, &i) in y.chunks_exact_mut(d).zip(&index[first..]) {
                        let row = table.rows_from(i as usize, 1).to_accum();
                        y.iter_mut().zip(&*row).for_each(|(y, &x)| *y = T::narrow(x));
                    }
                });
                Tensor::new(y, [index.len(), d])
            })
        )
    }

    fn backward(&self, mut saved: Saved, dy: Tensor, _needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let (indices, table) = (saved.take("indices")?, saved.take("table")?);
        let picks = (0..).zip(indices.host::<u32>()?.iter().copied()).collect();
        Ok(vec![Some(table_gradient(&dy, picks, table.shape())?), None])
    }
}

/// A row of y, and the row of the table that it was taken from.
pub(super) type Pick = (u32, u32);

/// The gradient of a table of `shape` `[V, d]`: each row of dy `[T, d]` is added to the row of the table that was picked for it.
pub(super) fn table_gradient(dy: &Tensor, picks: Vec<Pick>, shape: &Shape) -> Result<Tensor> {
    let d = shape.cols();
    on_device!(
        dy,
        |device| launch::table_gradient(device, dy, picks, shape),
        dispatch!("embedding", dy.dtype(), T => {
            let (dy, mut dtable) = (dy.host::<T>()?, zeroed::<<T as Scalar>::Acc>(shape.len()));
            for (row, picked) in picks {
                let dy = &dy[row as usize * d..][..d];
                dtable[picked as usize * d..][..d].iter_mut().zip(dy).for_each(|(sum, &dy)| *sum += dy.widen());
            }
            Tensor::new(dtable, shape)
        })
    )
}

/// The indices, if all are rows of the table `[V, d]`.
pub(super) fn check<'a>(table: &Tensor, indices: &'a Tensor) -> Result<&'a [u32]> {
    let &[vocabulary, _] = table.dims() else {
        return Err(Error::shape("embedding", "a table [V, d]", &[table.shape()]));
    };
    let index = indices.host::<u32>()?;
    match index.iter().find(|&&i| i as usize >= vocabulary) {
        Some(bad) => Err(Error::invalid(format!("embedding: index {bad} is not below the table's {vocabulary} rows"))),
        None => Ok(index),
    }
}

impl Tape<'_> {
    /// Rows of a table, in type `dtype`; see [`Embedding`].
    ///
    /// # Errors
    /// If an index is not below V.
    pub fn embedding(&mut self, table: &Var, indices: &Tensor, dtype: DType) -> Result<Var> {
        let indices = self.constant(indices);
        self.apply(Embedding { dtype }, &[table, &indices])
    }
}
