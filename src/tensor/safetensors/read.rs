//! Reading safetensors files: one mapped file, or a set of shards with an index.

use super::header::{self, TensorInfo};
use super::little_endian;
use super::pickle::pickle;
use crate::error::nearest;
use crate::files::{Unique, is_there, open_file, read_text};
use crate::tensor::{DType, MappedFile, Shape, Tensor, alloc, dispatch_any};
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use zerocopy::IntoBytes;

/// One safetensors file, or a sharded set under `model.safetensors.index.json`.
#[derive(Default)]
pub struct SafeTensors {
    path: PathBuf,
    files: Vec<PathBuf>,
    maps: Vec<Arc<MappedFile>>,
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
        if is_there(&single) {
            SafeTensors::open_all(&single, std::slice::from_ref(&single))
        } else if is_there(&index) {
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
            if all.tensors.get(name).is_none_or(|(i, _)| shards[*i] != shard) {
                return Err(Error::file(directory.join(shard), format!("tensor {name:?}"), "the index says it is here, but it is not"));
            }
        }
        if let Some(name) = all.tensors.keys().find(|name| !weight_map.contains_key(*name)) {
            return Err(Error::file(index, format!("tensor {name:?}"), "stands in a shard but not in the index"));
        }
        Ok(all)
    }

    fn open_all(path: &Path, files: &[PathBuf]) -> Result<SafeTensors> {
        let mut result = SafeTensors { path: path.to_path_buf(), files: files.to_vec(), ..SafeTensors::default() };
        for (i, file) in files.iter().enumerate() {
            let map = MappedFile::new(open_file(file)?, file)?;
            let header = header::parse(file, &map)?;
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
        Some((&self.maps[*file][info.bytes.clone()], &self.files[*file]))
    }

    /// The texts under `__metadata__`.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Frees the memory of the mapped pages of a tensor, for example after it was converted to another data type. A later access reads the pages
    /// from the file again. Does nothing on systems that cannot do this.
    pub fn release(&self, name: &str) {
        if let Some((file, info)) = self.tensors.get(name) {
            self.maps[*file].release(info.bytes.clone());
        }
    }

    /// Checks that no other program wrote to the files since they were opened.
    ///
    /// # Errors
    /// If one did; the message names the file.
    pub fn check_unchanged(&self) -> Result<()> {
        self.maps.iter().try_for_each(|map| map.check_unchanged())
    }

    /// The tensor of this name: a view of the mapped file if its bytes are aligned, else a copy.
    ///
    /// # Errors
    /// If there is no such tensor (the message lists the nearest names), or its data type is not F32, F64, F16, BF16 or U32.
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        let refused = |problem: String| Error::file(&self.path, format!("tensor {name:?}"), problem);
        let missing = || refused(format!("is not there; the nearest names are {}", nearest(name, self.names(), 3).join(", ")));
        let (file, info) = self.tensors.get(name).ok_or_else(missing)?;
        let unknown = || refused(format!("data type {} cannot be computed with: convert it to F32, BF16 or F16", info.dtype));
        let dtype = DType::ALL.into_iter().find(|dtype| dtype.to_string() == info.dtype).ok_or_else(unknown)?;
        let (map, shape) = (&self.maps[*file], Shape::from(&info.shape));
        match Tensor::mapped(map, info.bytes.clone(), dtype, shape.clone()) {
            Some(tensor) => Ok(tensor),
            None => copied(&map[info.bytes.clone()], dtype, shape),
        }
    }
}

/// A tensor of the little-endian elements in `bytes`.
fn copied(bytes: &[u8], dtype: DType, shape: Shape) -> Result<Tensor> {
    dispatch_any!(dtype, T => {
        let mut values = alloc::<T>(shape.len());
        values.as_mut_bytes().copy_from_slice(bytes);
        little_endian(values.as_mut_bytes(), dtype);
        Tensor::new(values, shape)
    })
}
