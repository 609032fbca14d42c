//! Searches a tensor for a NaN or an infinity.

use super::{DType, Tensor, rows, simd};
use crate::{Error, Result};
use half::{bf16, f16};

impl Tensor {
    /// The index of the first element in row-major order that is NaN or infinite. `None` if there is none, or the elements are integers.
    ///
    /// # Errors
    /// If the tensor cannot be copied from a GPU.
    pub(crate) fn first_not_finite(&self) -> Result<Option<usize>> {
        let host = self.to_host()?;
        // NaN and the infinities are the numbers whose exponent has only ones.
        Ok(match self.dtype() {
            DType::F32 => first(host.host()?, |x: f32| x.to_bits() & 0x7F80_0000 == 0x7F80_0000),
            DType::F64 => first(host.host()?, |x: f64| x.to_bits() & 0x7FF0 << 48 == 0x7FF0 << 48),
            DType::BF16 => first(host.host()?, |x: bf16| x.to_bits() & 0x7F80 == 0x7F80),
            DType::F16 => first(host.host()?, |x: f16| x.to_bits() & 0x7C00 == 0x7C00),
            DType::U32 => None,
        })
    }

    /// A phrase about the first NaN or infinity, such as "holds NaN at [2, 17]". `None` if all elements are finite.
    ///
    /// # Errors
    /// As [`Tensor::first_not_finite`].
    pub(crate) fn not_finite(&self) -> Result<Option<String>> {
        let Some(at) = self.first_not_finite()? else { return Ok(None) };
        let (mut rest, mut place) = (at, Vec::new());
        for &size in self.dims().iter().rev() {
            place.insert(0, rest % size);
            rest /= size;
        }
        let number = self.reshape([self.shape().len()])?.index(at)?.item()?;
        Ok(Some(format!("holds {number} at {place:?}")))
    }

    /// Refuses a tensor with a NaN or an infinity. `error` makes the error from a phrase such as "holds NaN at [3, 4]".
    ///
    /// # Errors
    /// That of `error`, or if the tensor cannot be copied from a GPU.
    pub fn check_finite(&self, error: impl FnOnce(String) -> Error) -> Result<()> {
        self.not_finite()?.map_or(Ok(()), |what| Err(error(what)))
    }
}

/// The index of the first element for which `bad` is true.
fn first<T: Copy + Sync>(x: &[T], bad: impl Fn(T) -> bool + Copy + Sync + Send) -> Option<usize> {
    let within = |range: std::ops::Range<usize>| {
        let x = &x[range.clone()];
        // A loop without a branch becomes vector code. Only if it finds something, the place is searched.
        let any = simd::vectorised(|| {
            let mut any = false;
            for &x in x {
                any |= bad(x);
            }
            any
        });
        if any { x.iter().position(|&x| bad(x)).map(|at| range.start + at) } else { None }
    };
    rows::reduce(x.len(), 1, within, |first, next| *first = first.or(next)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bad_number_is_found_wherever_it_is() {
        // More than the groups that threads take. Miri takes a thousand times as long.
        for n in [1, 7, if cfg!(miri) { 50 } else { 40_000 }] {
            for dtype in [DType::F32, DType::F64, DType::BF16, DType::F16] {
                let largest = if dtype == DType::F16 { 60_000.0 } else { 3e38 };
                let good = vec![largest; n];
                assert_eq!(Tensor::from_f64(good.clone(), dtype, [n]).unwrap().first_not_finite().unwrap(), None);
                for (at, bad) in [(0, f64::NAN), (n / 2, -f64::NAN), (n - 1, f64::INFINITY), (n / 3, f64::NEG_INFINITY)] {
                    let mut values = good.clone();
                    values[at] = bad;
                    values[n - 1] = if at == n - 1 { bad } else { f64::NAN };
                    let tensor = Tensor::from_f64(values, dtype, [n]).unwrap();
                    assert_eq!(tensor.first_not_finite().unwrap(), Some(at), "{dtype} {n} {bad}");
                }
            }
        }
        assert_eq!(Tensor::new(vec![u32::MAX; 3], [3]).unwrap().first_not_finite().unwrap(), None);
        assert_eq!(Tensor::zeros(DType::F32, [0, 3]).first_not_finite().unwrap(), None);
    }

    #[test]
    fn a_refusal_says_what_and_where() {
        let mut values = vec![1f32; 12];
        values[7] = f32::NEG_INFINITY;
        let tensor = Tensor::new(values, [2, 3, 2]).unwrap();
        let said = |t: &Tensor| t.check_finite(|what| Error::invalid(format!("tensor {what}"))).map_err(|e| e.to_string());
        assert_eq!(said(&tensor), Err("tensor holds -inf at [1, 0, 1]".into()));
        assert_eq!(said(&tensor.index(0).unwrap()), Ok(()));
        assert_eq!(said(&tensor.index(1).unwrap()), Err("tensor holds -inf at [0, 1]".into()));
    }
}
