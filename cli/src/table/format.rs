//! The formats of tables.

use lowrank::{Error, Result};
use std::path::Path;

/// The format of a table, by the end of its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// CSV or TSV.
    Fields {
        /// The byte between two fields.
        delimiter: u8,
        /// In gzip format.
        packed: bool,
    },
    /// JSON objects.
    Json {
        /// In a list, and not one a line.
        list: bool,
        /// In gzip format.
        packed: bool,
    },
    /// Parquet.
    Parquet,
}

impl Format {
    /// The format of the file at `path`, which the argument `argument` names.
    ///
    /// # Errors
    /// If no format has this end.
    pub fn of(path: &Path, argument: &str) -> Result<Format> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        let (name, packed) = name.strip_suffix(".gz").map_or((name.as_str(), false), |name| (name, true));
        match (name.rsplit_once('.').map_or("", |(_, end)| end), packed) {
            ("csv", _) => Ok(Format::Fields { delimiter: b',', packed }),
            ("tsv", _) => Ok(Format::Fields { delimiter: b'\t', packed }),
            ("jsonl" | "ndjson", _) => Ok(Format::Json { list: false, packed }),
            ("json", _) => Ok(Format::Json { list: true, packed }),
            ("parquet", false) => Ok(Format::Parquet),
            _ => Err(Error::file(path, argument, "must end with .csv, .tsv, .jsonl or .json, each perhaps with .gz, or with .parquet")),
        }
    }
}

impl Format {
    /// Whether columns are told apart by their place and not by their names.
    pub fn has_fields(self) -> bool {
        matches!(self, Format::Fields { .. })
    }
}

/// Parquet is not in this program.
#[cfg(not(feature = "parquet"))]
pub fn no_parquet(path: &Path, argument: &str) -> Error {
    let problem = "is a Parquet file, which this program cannot read or write: build it with --features parquet, or use .csv or .jsonl";
    Error::file(path, argument, problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_name_tells_the_format() {
        let of = |name: &str| Format::of(Path::new(name), "--out");
        assert_eq!(of("a/B.CSV").unwrap(), Format::Fields { delimiter: b',', packed: false });
        assert_eq!(of("b.tsv.gz").unwrap(), Format::Fields { delimiter: b'\t', packed: true });
        assert_eq!(of("b.jsonl.gz").unwrap(), Format::Json { list: false, packed: true });
        assert_eq!((of("b.json").unwrap(), of("b.parquet").unwrap()), (Format::Json { list: true, packed: false }, Format::Parquet));
        for wrong in ["b", "b.txt", "b.gz", "b.parquet.gz", ".."] {
            assert!(of(wrong).is_err_and(|e| e.to_string().contains("--out: must end with .csv")), "{wrong}");
        }
    }
}
