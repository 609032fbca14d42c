//! Enters `data::load_with_labels` and `data::load_texts` with a file of JSON: lines, or one list.

pub fn run(data: &[u8]) {
    super::table::run("a.jsonl", data);
}
