use super::*;
use crate::tensor::{DType, Tensor};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;

fn file(bytes: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.safetensors");
    std::fs::write(&path, bytes).unwrap();
    (dir, path)
}

fn with_header(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(vec![0; data]);
    bytes
}

fn random_tensors() -> impl Strategy<Value = Vec<(String, Tensor)>> {
    let dtype = prop_oneof![Just(DType::F32), Just(DType::F64), Just(DType::BF16), Just(DType::F16)];
    let tensor = (dtype, prop::collection::vec(0usize..4, 0..4), -9.0f64..9.0)
        .prop_map(|(dtype, dims, x)| Tensor::from_f64((0..dims.iter().product()).map(|i| x + i as f64).collect(), dtype, dims).unwrap());
    prop::collection::btree_map("[a-z.\"é]{1,6}", tensor, 0..5).prop_map(|m| m.into_iter().collect())
}

proptest! {
    #[test]
    fn the_reference_reads_ours_and_we_read_the_references(tensors in random_tensors(), metadata in prop::collection::btree_map("[a-z]{1,4}", ".{0,4}", 0..3)) {
        let bytes = to_bytes(&tensors, &metadata).unwrap();
        let oracle = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        prop_assert_eq!(oracle.len(), tensors.len());
        let again = safetensors::serialize(oracle.iter(), (!metadata.is_empty()).then(|| metadata.clone().into_iter().collect())).unwrap();
        for bytes in [bytes, again] {
            let (_dir, path) = file(&bytes);
            let ours = SafeTensors::open(&path).unwrap();
            prop_assert_eq!(ours.names().count(), tensors.len());
            prop_assert_eq!(ours.metadata(), &metadata);
            for (name, t) in &tensors {
                let read = ours.tensor(name).unwrap();
                prop_assert_eq!((read.dtype(), read.shape()), (t.dtype(), t.shape()));
                prop_assert_eq!(read.to_f64().unwrap(), t.to_f64().unwrap());
            }
        }
    }

    #[test]
    fn a_damaged_file_never_panics(tensors in random_tensors(), flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), cut: prop::sample::Index) {
        let mut bytes = to_bytes(&tensors, &BTreeMap::new()).unwrap();
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        let (_dir, path) = file(&bytes);
        if let Ok(opened) = SafeTensors::open(&path) {
            opened.names().for_each(|name| drop(opened.tensor(name)));
        }
    }
}

#[test]
fn a_misaligned_tensor_is_copied() {
    let header = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}} "#;
    assert_ne!(header.len() % 4, 0);
    let mut bytes = with_header(header, 0);
    bytes.extend(1.5f32.to_le_bytes());
    let (_dir, path) = file(&bytes);
    let t = SafeTensors::open(&path).unwrap().tensor("a").unwrap();
    assert_eq!(t.host::<f32>().unwrap(), [1.5]);
}

#[test]
fn hostile_files_get_a_named_error() {
    let f32 = |rest: &str| format!(r#"{{"a":{{"dtype":"F32",{rest}}}}}"#);
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (vec![1, 2, 3], "shorter than the 8 bytes"),
        (u64::MAX.to_le_bytes().to_vec(), "more than the 100000000 allowed"),
        (1000u64.to_le_bytes().to_vec(), "truncated"),
        (with_header("\u{7f}{", 0), "not the JSON"),
        ([2u64.to_le_bytes().to_vec(), vec![0xff, 0xfe]].concat(), "not UTF-8"),
        (with_header("[]", 0), "not the JSON"),
        (with_header(&f32(r#""shape":[1],"data_offsets":[0,4]"#), 3), "truncated or corrupt"),
        (with_header(&f32(r#""shape":[1],"data_offsets":[4,0]"#), 4), "truncated or corrupt"),
        (with_header(&f32(r#""shape":[2],"data_offsets":[0,4]"#), 4), "takes 8 bytes"),
        (with_header(&f32(r#""shape":[1],"data_offsets":[4,8]"#), 8), "leaves a gap"),
        (with_header(&f32(r#""shape":[1],"data_offsets":[0,4]"#), 8), "belong to no tensor"),
        (with_header(&f32(r#""shape":[1],"data_offsets":[0,4],"x":1"#), 4), "unknown field"),
        (with_header(&f32(r#""shape":[-1],"data_offsets":[0,4]"#), 4), "invalid value"),
        (with_header(&f32(r#""shape":[9223372036854775807,4],"data_offsets":[0,4]"#), 4), "overflows"),
        (with_header(r#"{"__metadata__":{"a":1}}"#, 0), "not a map of texts"),
        (with_header(r#"{"__metadata__":{"a":"1","a":"2"}}"#, 0), "twice"),
        (with_header(&f32(r#""dtype":"F32","shape":[1],"data_offsets":[0,4]"#), 4), "duplicate field"),
        (with_header(&f32(r#""shape":[0,18446744073709551615,2],"data_offsets":[0,0]"#), 0), "overflows"),
        (
            with_header(r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#, 1),
            "twice",
        ),
        (
            with_header(r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}"#, 3),
            "overlaps",
        ),
    ];
    for (bytes, message) in cases {
        let (_dir, path) = file(&bytes);
        let e = SafeTensors::open(&path).err().unwrap_or_else(|| panic!("opened, should say {message}")).to_string();
        assert!(e.contains(message) && e.contains("x.safetensors"), "{e} should say {message}");
    }
    let (_dir, path) = file(&with_header(r#"{"abc":{"dtype":"I64","shape":[],"data_offsets":[0,8]}}"#, 8));
    let opened = SafeTensors::open(&path).unwrap();
    assert!(opened.tensor("abc").unwrap_err().to_string().contains("I64 cannot be computed with"));
    assert!(opened.tensor("abd").unwrap_err().to_string().contains("nearest names are abc"));
    let newer = r#"{"a":{"dtype":"C64","shape":[1],"data_offsets":[0,8]},"b":{"dtype":"U32","shape":[],"data_offsets":[8,12]}}"#;
    let (_dir, path) = file(&with_header(newer, 12));
    let opened = SafeTensors::open(&path).unwrap();
    assert_eq!(opened.tensor("b").unwrap().dims(), [0; 0]);
    assert!(opened.tensor("a").unwrap_err().to_string().contains("C64 cannot be computed with"));
    assert!(SafeTensors::open(Path::new("/nowhere/x")).is_err());
}

#[test]
fn shards_are_checked_against_their_index() {
    let dir = tempfile::tempdir().unwrap();
    let one = |name: &str| vec![(name.to_string(), Tensor::new(vec![1f32], [1]).unwrap())];
    write(&dir.path().join("1.safetensors"), &one("a"), &BTreeMap::new()).unwrap();
    write(&dir.path().join("2.safetensors"), &one("b"), &BTreeMap::new()).unwrap();
    let index = |map: &str| {
        std::fs::write(dir.path().join("model.safetensors.index.json"), format!(r#"{{"weight_map":{map}}}"#)).unwrap();
        SafeTensors::open(dir.path()).map(|s| s.names().map(String::from).collect::<Vec<_>>()).map_err(|e| e.to_string())
    };
    assert_eq!(index(r#"{"a":"1.safetensors","b":"2.safetensors"}"#).unwrap(), ["a", "b"]);
    assert!(index(r#"{"a":"2.safetensors","b":"1.safetensors"}"#).unwrap_err().contains("but it is not"));
    assert!(index(r#"{"a":"../1.safetensors"}"#).unwrap_err().contains("same directory"));
    assert!(index(r#"{"a":"1.safetensors","c":"2.safetensors"}"#).unwrap_err().contains("but it is not"));
    assert!(index(r#"{"a":"3.safetensors"}"#).unwrap_err().contains("3.safetensors"));
}

#[test]
fn real_files_are_read_and_written_byte_for_byte() {
    let Some(golden) = crate::testing::shared("golden/lora/adapter_trained/adapter_model.safetensors") else { return };
    let read = SafeTensors::open(&golden).unwrap();
    let tensors: Vec<_> = read.names().map(|n| (n.to_string(), read.tensor(n).unwrap())).collect();
    assert!(to_bytes(&tensors, read.metadata()).unwrap() == std::fs::read(&golden).unwrap());
    let Some(checkpoint) = crate::testing::shared("checkpoints/minilm-l6-distilbert") else { return };
    assert_eq!(SafeTensors::open(&checkpoint).unwrap().names().count(), 100);
}

#[test]
#[cfg(unix)]
#[cfg_attr(miri, ignore = "programs")]
fn a_pipe_is_refused_and_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    crate::testing::make_pipe(&path);
    let message = SafeTensors::open(dir.path()).map(drop).unwrap_err().to_string();
    assert!(message.contains("model.safetensors: file: is a named pipe"), "{message}");
}
