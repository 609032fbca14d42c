//! A page of a mapped file that is lost. In a process of its own, which remembers it for ever.
#![cfg(target_os = "linux")]
#![allow(unsafe_code)]

use lowrank_cli::lost::{check, watch};

#[test]
fn a_lost_page_reads_as_zeros_and_is_remembered() {
    watch();
    check().unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), [1; 3 * 4096]).unwrap();
    // SAFETY: the file is changed below on purpose; the bytes are read through volatile reads only.
    let map = unsafe { memmap2::Mmap::map(file.as_file()) }.unwrap();
    // SAFETY: `at` is below the length of the map.
    let read = |at: usize| unsafe { map.as_ptr().add(at).read_volatile() };
    assert_eq!((read(0), read(9000)), (1, 1));
    file.as_file().set_len(4096).unwrap();
    assert_eq!((read(0), read(5000), read(9000)), (1, 0, 0));
    assert!(check().is_err());
}
