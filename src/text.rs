//! Numbers as text, and names that are there twice.

use std::collections::HashSet;
use std::hash::Hash;

/// Two hexadecimal digits for each byte, as hashes are written.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// 1234567 as `1,234,567`.
pub fn thousands(n: usize) -> String {
    if n < 1000 { n.to_string() } else { format!("{},{:03}", thousands(n / 1000), n % 1000) }
}

/// The first of `names` that was there before.
pub fn repeated<T: Eq + Hash>(names: &[T]) -> Option<&T> {
    let mut there = HashSet::new();
    names.iter().find(|name| !there.insert(*name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_that_is_there_twice_is_found() {
        let of = |names: &str| repeated(&names.split(' ').map(String::from).collect::<Vec<_>>()).map(String::from);
        assert_eq!([of("a b c"), of("a b A b a"), of("")], [None, Some("b".to_string()), None]);
        // With a search through all names for each, these are 10^11 comparisons.
        let many: Vec<String> = (0..400_000).map(|i| i.to_string()).collect();
        assert_eq!(repeated(&many), None);
    }
}
