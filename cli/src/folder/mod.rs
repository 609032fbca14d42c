//! Folders of results: written whole or not at all, replaced only if lowrank wrote them, by one process at a time.
//!
//! ```text
//! lock ─► recover ─► check_replaceable ─► (hours of work) ─► write_directory ─► marker
//! ```
//!
//! [`write_directory`] fills a hidden folder beside the result, lists its files with their hashes in a marker, and puts it in place by one
//! rename. A folder without a marker, or with a file that the marker does not prove, belongs to somebody else: it is never changed.

mod lock;
mod marker;
mod recover;
mod replace;

pub use lock::{Lock, lock, try_lock};
pub use marker::{MARKER, check_replaceable_file, replace_file};
pub use recover::recover;
pub use replace::{check_replaceable, followed, if_supported, remove, write_directory};
