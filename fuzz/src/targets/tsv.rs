//! Enters `data::load_with_labels` and `data::load_texts` with a file `a.tsv`.

pub fn run(data: &[u8]) {
    super::table::run("a.tsv", data);
}
