//! Files of checkpoints, adapters and results: read with checks, and replaced whole or not at all.

mod read;
mod replace;

pub(crate) use read::{LFS_POINTER, Unique, is_lfs_pointer};
pub use read::{read_bytes, read_text};
pub use replace::{check_replaceable, recover_directory, remove_flat, write_directory, write_file};
