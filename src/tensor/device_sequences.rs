//! The sequence boundaries of a packed batch on a GPU.

use super::Tensor;

/// The sequence boundaries of a packed batch, for GPU kernels.
#[derive(Debug)]
pub struct DeviceSequences {
    /// The first row of each sequence, and T: `[B + 1]` u32.
    pub offsets: Tensor,
    /// The sequence of each row: `[T]` u32.
    pub row_sequence: Tensor,
    /// The example number of each sequence, see [`super::Sequences::new`]: `[B]` u32.
    pub examples: Tensor,
}
