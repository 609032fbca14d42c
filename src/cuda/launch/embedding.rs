//! Table lookup, and the gradient of a table.

use super::{addresses, launch, of_either, rows_of_warps, size};
use crate::Result;
use crate::cuda::Device;
use crate::tensor::cuda::upload_together;
use crate::tensor::{DType, Shape, Tensor};
use std::sync::Arc;

/// `y[t] = table[ids[t]]` in `dtype`.
pub(crate) fn look_up(device: &Arc<Device>, table: &Tensor, ids: &Tensor, dtype: DType) -> Result<Tensor> {
    let (ids, cols) = (ids.to_device(device)?, table.shape().cols());
    let y = Tensor::empty_on(device, dtype, [ids.shape().len(), cols])?;
    let mut arguments = of_either("embedding", Some(table))?.to_vec();
    let rows = ids.shape().len();
    arguments.extend([ids.argument()?, y.argument()?, size(rows), size(cols)]);
    launch(device, "embedding", "embedding_forward", dtype, rows_of_warps(rows), &arguments)?;
    Ok(y)
}

/// The gradient of a table of `shape`, f32. `picks` has a row of dy, and the row of the table that it is added to. They are sorted by the latter, so that
/// one block of threads adds all rows of dy that belong to a row of the table, in a fixed order.
pub(crate) fn table_gradient(device: &Arc<Device>, dy: &Tensor, mut picks: Vec<(u32, u32)>, shape: &Shape) -> Result<Tensor> {
    picks.sort_by_key(|&(_, picked)| picked);
    let (mut unique, mut starts) = (Vec::new(), Vec::new());
    for (i, &(_, picked)) in picks.iter().enumerate() {
        if unique.last() != Some(&picked) {
            unique.push(picked);
            starts.push(i as u32);
        }
    }
    starts.push(picks.len() as u32);
    let rows: Vec<u32> = picks.iter().map(|&(row, _)| row).collect();
    let groups = unique.len();
    let [unique, starts, rows] = upload_together(device, [&unique, &starts, &rows])?;
    let dtable = Tensor::zeros_on(device, DType::F32, shape)?;
    let mut arguments = addresses(&[dy, &unique, &starts, &rows, &dtable])?;
    arguments.push(size(shape.cols()));
    launch(device, "embedding", "embedding_backward", dy.dtype(), [groups, 1, 1], &arguments)?;
    Ok(dtable)
}
