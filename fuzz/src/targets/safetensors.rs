//! Enters `tensor::safetensors::SafeTensors::open` and reads every tensor. An input with an index has three parts: the index and two shards.

use super::input::{parts, safetensors_file, with_files};
use lowrank::tensor::safetensors::SafeTensors;

pub fn run(data: &[u8]) {
    match data.strip_prefix(b"index\n") {
        Some(sharded) => {
            let [index, first, second] = parts::<3>(sharded);
            let shards = [safetensors_file(first), safetensors_file(second)];
            let files = [("model.safetensors.index.json", index), ("a.safetensors", &shards[0]), ("b.safetensors", &shards[1])];
            with_files(&files, |folder| SafeTensors::open(folder).is_ok_and(|file| read_all(&file)));
        }
        None => {
            let file = safetensors_file(data);
            with_files(&[("a.safetensors", &file)], |folder| {
                SafeTensors::open(&folder.join("a.safetensors")).is_ok_and(|file| read_all(&file))
            });
        }
    }
}

fn read_all(file: &SafeTensors) -> bool {
    let names: Vec<String> = file.names().map(String::from).collect();
    for name in &names {
        let info = file.info(name).expect("a name has an entry");
        let (bytes, _) = file.bytes(name).expect("a name has bytes");
        assert_eq!(bytes.len(), info.bytes.len());
        let sum = bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte));
        if let Ok(tensor) = file.tensor(name) {
            assert_eq!((tensor.dims(), tensor.bytes()), (&info.shape[..], bytes.len()));
            let _ = tensor.to_f64();
        }
        file.release(name);
        let (bytes, _) = file.bytes(name).expect("a name has bytes");
        assert_eq!(bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte)), sum, "released pages are read again");
    }
    assert!(file.contains("no such tensor") || file.tensor("no such tensor").is_err());
    true
}
