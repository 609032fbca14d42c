//! Verdicts on claims. A difference counts if its 95 % interval does not contain 0.

use super::statistics::Difference;
use std::fmt;

/// What the measurements say about a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The claim holds.
    Supported,
    /// The claim does not hold.
    NotSupported,
    /// The intervals allow both.
    Undecided,
    /// Nothing was measured.
    NotMeasured,
    /// Too little was measured for a verdict.
    NotJudged,
}

impl Verdict {
    /// The name of the CSS class.
    pub fn class(self) -> &'static str {
        match self {
            Verdict::Supported => "supported",
            Verdict::NotSupported => "not-supported",
            Verdict::Undecided => "undecided",
            Verdict::NotMeasured => "not-measured",
            Verdict::NotJudged => "not-judged",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.class().replace('-', " "))
    }
}

/// Supported if a measured fact is true.
pub fn holds(fact: Option<bool>) -> Verdict {
    match fact {
        Some(true) => Verdict::Supported,
        Some(false) => Verdict::NotSupported,
        None => Verdict::NotMeasured,
    }
}

/// Supported if the whole interval is above `least`, not supported if the whole interval is below.
fn beyond(difference: Option<(f64, f64)>, least: f64) -> Verdict {
    match difference {
        Some((low, _)) if low > least => Verdict::Supported,
        Some((_, high)) if high < least => Verdict::NotSupported,
        Some(_) => Verdict::Undecided,
        None => Verdict::NotMeasured,
    }
}

/// Supported if the whole interval is above 0.
pub fn above(difference: Option<Difference>) -> Verdict {
    beyond(difference.map(|d| d.interval), 0.0)
}

/// Supported if the whole interval is below `most`.
pub fn below(difference: Option<Difference>, most: f64) -> Verdict {
    beyond(difference.map(|d| (-d.interval.1, -d.interval.0)), -most)
}

/// Supported if all are supported, not supported if one is not.
pub fn all(verdicts: &[Verdict]) -> Verdict {
    let worst = [Verdict::NotSupported, Verdict::NotMeasured, Verdict::Undecided];
    worst.into_iter().find(|verdict| verdicts.contains(verdict)).unwrap_or(Verdict::Supported)
}
