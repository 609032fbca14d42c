//! The shape of a tensor: the size of each dimension, outermost first.

use std::fmt;

/// The sizes of the dimensions, outermost first. `[2, 3]` is a matrix of 2 rows and 3 columns; a scalar has no dimension: `[]`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Shape(Vec<usize>);

impl Shape {
    /// Number of elements: the product of the sizes; 1 for a scalar.
    ///
    /// # Panics
    /// If it is too large for a `usize`. No tensor has such a shape.
    pub fn len(&self) -> usize {
        self.checked_len().unwrap_or_else(|| panic!("tensor: the product of the sizes {self} is too large"))
    }

    /// Number of elements. `None` if the product of the sizes that are not zero is too large for a `usize`.
    pub fn checked_len(&self) -> Option<usize> {
        product(&self.0)
    }

    /// True if there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The sizes, outermost first.
    pub fn dims(&self) -> &[usize] {
        &self.0
    }

    /// Number of columns: the last size; 1 for a scalar.
    pub fn cols(&self) -> usize {
        *self.0.last().unwrap_or(&1)
    }

    /// Number of rows: the product of all sizes but the last; 1 for a scalar.
    ///
    /// # Panics
    /// If it is too large for a `usize`.
    pub fn rows(&self) -> usize {
        let rows = self.0.split_last().map_or(&[][..], |(_, rows)| rows);
        product(rows).unwrap_or_else(|| panic!("tensor: the product of the sizes {rows:?} is too large"))
    }

    /// The same shape with another last size.
    pub fn with_cols(&self, cols: usize) -> Shape {
        let mut dims = self.0.clone();
        match dims.last_mut() {
            Some(last) => *last = cols,
            None => dims.push(cols),
        }
        Shape(dims)
    }
}

/// The product of the sizes. `None` if the product of those that are not zero is too large.
fn product(sizes: &[usize]) -> Option<usize> {
    let product = sizes.iter().filter(|size| **size > 0).try_fold(1_usize, |product, size| product.checked_mul(*size));
    product.map(|product| if sizes.contains(&0) { 0 } else { product })
}

/// From anything that can be read as a slice of sizes: an array, a slice, a `Vec`.
impl<T: AsRef<[usize]>> From<T> for Shape {
    fn from(dims: T) -> Self {
        Shape(dims.as_ref().to_vec())
    }
}

impl From<&Shape> for Shape {
    fn from(shape: &Shape) -> Self {
        shape.clone()
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Tensor;

    #[test]
    fn sizes_that_are_too_large_are_refused() {
        let half = 1 << (usize::BITS / 2);
        for dims in [vec![half, half], vec![half, half, 0], vec![0, half, half], vec![usize::MAX, 2]] {
            let shape = Shape::from(dims);
            assert_eq!(shape.checked_len(), None, "{shape}");
            let refused = |e: crate::Error| e.to_string().contains(&shape.to_string());
            assert!(Tensor::new(Vec::<f32>::new(), &shape).is_err_and(refused));
            assert!(Tensor::zeros(crate::tensor::DType::F32, [0]).reshape(&shape).is_err());
            assert!(std::panic::catch_unwind(|| shape.len()).is_err());
        }
        assert!(crate::tensor::Sequences::new(&[usize::MAX, 2], vec![0, 1]).is_err());
        assert_eq!(Shape::from([half, 0, half - 1]).rows(), 0);
        assert_eq!((Shape::from([]).rows(), Shape::from([7]).rows(), Shape::from([2, 3, 4]).rows()), (1, 1, 6));
    }
}
