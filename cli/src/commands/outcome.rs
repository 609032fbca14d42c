//! How a command ends.

/// How a command ended.
pub enum Outcome {
    Done,
    /// A check found a difference.
    Failed,
    /// Ctrl-C or another signal asked to stop; the state was saved.
    Interrupted,
}
