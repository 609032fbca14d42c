//! Files of checkpoints, adapters and results: read with checks, and written whole or not at all.

mod open;
mod read;
mod write;

pub use open::{check_no_pipe, is_there, open_file, open_stream};
pub(crate) use read::{LFS_POINTER, Unique, is_lfs_pointer};
pub use read::{read_bytes, read_stream, read_text};
pub use write::{copy_file, is_temporary, parent, remove_leftovers, temporary, write_file, write_with};
