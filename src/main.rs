//! lowrank
fn main() {}
