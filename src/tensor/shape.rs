//! The shape of a tensor: the size of each dimension, outermost first.

use std::fmt;

/// The sizes of the dimensions, outermost first. `[2, 3]` is a matrix of 2 rows and 3 columns; a scalar has no dimension: `[]`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Shape(Vec<usize>);

impl Shape {
    /// Number of elements: the product of the sizes; 1 for a scalar.
    pub fn len(&self) -> usize {
        self.0.iter().product()
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
    pub fn rows(&self) -> usize {
        self.0.iter().rev().skip(1).product()
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
