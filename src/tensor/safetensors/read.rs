//! Reading safetensors files: one mapped file, or a set of shards with an index.
#![allow(unsafe_code)]

use super::header::{self, TensorInfo};
use super::pickle::pickle;
use crate::error::nearest;
use crate::files::{Unique, read_text};
use crate::tensor::{DType, Element, Shape, Tensor};
use crate::{Error, Result};
use byteorder::{ByteOrder, LittleEndian};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use memmap2::Mmap;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// One safetensors file, or a sharded set under `model.safetensors.index.json`.
pub struct SafeTensors {
    path: PathBuf,
    files: Vec<PathBuf>,
    maps: Vec<Arc<Mmap>>,
    /// For each name: the index of its file, and its entry in that file's header.
    tensors: BTreeMap<String, (usize, TensorInfo)>,
    metadata: BTreeMap<String, String>,
}

impl SafeTensors {
    /// Opens a file, or a directory with `model.safetensors`, or one with `model.safetensors.index.json` and its shards.
    ///
    /// # Errors
    /// If there is no such file, or its header is wrong. The message names the file, the place and the problem.
    pub fn open(path: &Path) -> Result<SafeTensors> {
        if !path.is_dir() {
            if let (false, Some(error)) = (path.exists(), path.parent().and_then(pickle)) {
                return Err(error);
            }
            return SafeTensors::open_all(path, &[path.to_path_buf()]);
        }
        let (single, index) = (path.join("model.safetensors"), path.join("model.safetensors.index.json"));
        if single.exists() {
            SafeTensors::open_all(&single, std::slice::from_ref(&single))
        } else if index.exists() {
            SafeTensors::open_sharded(path, &index)
        } else {
            let problem = "holds neither model.safetensors nor model.safetensors.index.json: give the directory of a checkpoint";
            Err(pickle(path).unwrap_or_else(|| Error::file(path, "directory", problem)))
        }
    }

    fn open_sharded(directory: &Path, index: &Path) -> Result<SafeTensors> {
        #[derive(serde::Deserialize)]
        struct Index {
            weight_map: Unique<String>,
        }
        let text = read_text(index)?;
        let Index { weight_map: Unique(weight_map) } = serde_json::from_str(&text).map_err(|e| Error::file(index, "index", e))?;
        let weight_map: BTreeMap<String, String> = weight_map.into_iter().collect();
        let mut shards: Vec<&String> = weight_map.values().collect();
        shards.sort();
        shards.dedup();
        for shard in &shards {
            let mut parts = Path::new(shard).components();
            if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
                return Err(Error::file(index, format!("shard {shard:?}"), "must be the name of a file in the same directory"));
            }
        }
        let paths: Vec<PathBuf> = shards.iter().map(|s| directory.join(s)).collect();
        let all = SafeTensors::open_all(index, &paths)?;
        for (name, shard) in &weight_map {
            match all.tensors.get(name) {
                Some((i, _)) if shards[*i] == shard => {}
                _ => {
                    return Err(Error::file(directory.join(shard), format!("tensor {name:?}"), "the index says it is here, but it is not"));
                }
            }
        }
        if let Some(name) = all.tensors.keys().find(|name| !weight_map.contains_key(*name)) {
            return Err(Error::file(index, format!("tensor {name:?}"), "stands in a shard but not in the index"));
        }
        Ok(all)
    }

    fn open_all(path: &Path, files: &[PathBuf]) -> Result<SafeTensors> {
        let mut result = SafeTensors {
            path: path.to_path_buf(),
            files: files.to_vec(),
            maps: Vec::new(),
            tensors: BTreeMap::new(),
            metadata: BTreeMap::new(),
        };
        for (i, file) in files.iter().enumerate() {
            let handle = File::open(file).map_err(|e| Error::io(file, e))?;
            // SAFETY: the map is read-only. It relies on one fact: nobody changes or truncates the file while it is mapped. The writers of this
            // crate never do, because they rename a new file over the old one (`files::write_file`). Other programs are trusted.
            let map = unsafe { Mmap::map(&handle) }.map_err(|e| Error::io(file, e))?;
            let header = header::parse(&map).map_err(|(place, problem)| Error::file(file, place, problem))?;
            for (name, info) in header.tensors {
                if result.tensors.insert(name.clone(), (i, info)).is_some() {
                    return Err(Error::file(file, format!("tensor {name:?}"), "stands in another shard too"));
                }
            }
            result.metadata.extend(header.metadata);
            result.maps.push(Arc::new(map));
        }
        Ok(result)
    }

    /// The file, or the index of a sharded set.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names of the tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The header's entry of a tensor.
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name).map(|(_, info)| info)
    }

    /// The bytes of a tensor in its file, and the path of that file.
    pub fn bytes(&self, name: &str) -> Option<(&[u8], &Path)> {
        let (file, info) = self.tensors.get(name)?;
        Some((&self.maps[*file][info.start..info.start + info.bytes], &self.files[*file]))
    }

    /// The texts under `__metadata__`.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Frees the memory of the mapped pages of a tensor, for example after it was converted to another data type. A later access reads the pages
    /// from the file again. Does nothing on systems that cannot do this.
    pub fn release(&self, name: &str) {
        #[cfg(unix)]
        if let Some((file, info)) = self.tensors.get(name) {
            // SAFETY: the map is backed by a file and read-only, so the dropped pages are only copies: a later access reads the same bytes from
            // the file. If the system refuses, nothing changes.
            let _ = unsafe { self.maps[*file].unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, info.start, info.bytes) };
        }
        #[cfg(not(unix))]
        let _ = name;
    }

    /// The tensor of this name: a view of the mapped file if its bytes are aligned, else a copy.
    ///
    /// # Errors
    /// If there is no such tensor (the message lists the nearest names), or its data type is not F32, F64, F16, BF16 or U32.
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        let Some((file, info)) = self.tensors.get(name) else {
            let near = nearest(name, self.names(), 3).join(", ");
            return Err(Error::file(&self.path, format!("tensor {name:?}"), format!("is not there; the nearest names are {near}")));
        };
        let Some(dtype) = DType::ALL.into_iter().find(|dtype| dtype.to_string() == info.dtype) else {
            let problem = format!("data type {} cannot be computed with: convert it to F32, BF16 or F16", info.dtype);
            return Err(Error::file(&self.path, format!("tensor {name:?}"), problem));
        };
        let (map, range) = (&self.maps[*file], info.start..info.start + info.bytes);
        let shape = Shape::from(&info.shape[..]);
        match Tensor::mapped(map, range.clone(), dtype, shape.clone()) {
            Some(tensor) => Ok(tensor),
            None => copied(&map[range], dtype, shape),
        }
    }
}

/// A tensor of the little-endian elements in `bytes`.
fn copied(bytes: &[u8], dtype: DType, shape: Shape) -> Result<Tensor> {
    fn read<T: Element>(shape: Shape, read: impl FnOnce(&mut [T])) -> Result<Tensor> {
        let mut values = vec![T::default(); shape.len()];
        read(&mut values);
        Tensor::new(values, shape)
    }
    match dtype {
        DType::F32 => read(shape, |to| LittleEndian::read_f32_into(bytes, to)),
        DType::F64 => read(shape, |to| LittleEndian::read_f64_into(bytes, to)),
        DType::BF16 => read(shape, |to: &mut [bf16]| LittleEndian::read_u16_into(bytes, to.reinterpret_cast_mut())),
        DType::F16 => read(shape, |to: &mut [f16]| LittleEndian::read_u16_into(bytes, to.reinterpret_cast_mut())),
        DType::U32 => read(shape, |to| LittleEndian::read_u32_into(bytes, to)),
    }
}
