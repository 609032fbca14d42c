//! The date, the program's version and the machine of a run.

use lowrank::tensor::simd;
use std::time::{SystemTime, UNIX_EPOCH};

/// Version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit that the program was built from, or `unknown`; set by `build.rs`.
pub const COMMIT: &str = env!("LOWRANK_COMMIT");

/// The time now in UTC, as RFC 3339 writes it: `2026-11-30T02:43:24Z`.
pub fn now() -> String {
    // A clock before 1970 is wrong; it counts as 1970.
    rfc3339(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

/// The time `seconds` after 1970-01-01 00:00 UTC.
fn rfc3339(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

/// Year, month and day of the day `days` after 1970-01-01. Howard Hinnant, `civil_from_days`,
/// <https://howardhinnant.github.io/date_algorithms.html>: years begin in March, so that a leap day is the last one.
fn civil(days: u64) -> (u64, u64, u64) {
    // Days since 0000-03-01.
    let days = days + 719_468;
    // An era has 400 years.
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    // Months counted from March: each group of five has 153 days.
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (year + era * 400 + next, month, day)
}

/// Name of the processor if it is known, number of cores, operating system, and the instruction set of the kernels.
pub fn processor() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let name = std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| model_name(&text));
    let name = name.map_or(String::new(), |name| format!("{name}, "));
    format!("{name}{cores} cores, {} {}, {}", std::env::consts::OS, std::env::consts::ARCH, simd::isa())
}

/// The first processor's name in `/proc/cpuinfo`.
fn model_name(cpuinfo: &str) -> Option<String> {
    let name = |line: &str| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == "model name").then(|| value.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    cpuinfo.lines().find_map(name).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_that_of_the_calendar() {
        // Seconds as `date --utc +%s` gives them.
        for (seconds, date) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_709_251_200, "2024-03-01T00:00:00Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds), date);
        }
    }

    #[test]
    fn a_processor_has_the_name_that_the_system_gives_it() {
        let text = "processor\t: 0\nmodel name\t: Some  CPU 9000 @ 2.0GHz\n\nprocessor\t: 1\nmodel name\t: Other\n";
        assert_eq!(model_name(text).as_deref(), Some("Some CPU 9000 @ 2.0GHz"));
        assert_eq!(model_name("processor\t: 0\nBogoMIPS\t: 50\n"), None);
    }
}
