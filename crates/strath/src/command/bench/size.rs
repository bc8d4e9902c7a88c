//! Sizes as they are written: `64`, `1KiB`, `16MiB`, `1GiB`.

use std::fmt;
use std::str::FromStr;

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub usize);

const UNITS: [(&str, usize); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
/// The most that is measured: beyond it nothing changes but the memory it takes.
const MOST: usize = 4 << 30;

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) = UNITS
            .iter()
            .find_map(|(name, unit)| text.strip_suffix(name).map(|number| (number, *unit)))
            .unwrap_or((text, 1));
        let bytes = number.trim().parse::<usize>().ok().and_then(|n| n.checked_mul(unit));
        match bytes {
            Some(bytes) if (4..=MOST).contains(&bytes) => Ok(Self(bytes)),
            _ => Err(format!("found \"{text}\", expected 4B to 4GiB, such as 64KiB")),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = UNITS.iter().find(|(_, unit)| self.0.is_multiple_of(*unit));
        let (name, unit) = whole.copied().unwrap_or(("B", 1));
        write!(f, "{}{name}", self.0 / unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_read_and_written_in_its_largest_whole_unit() {
        for (text, bytes) in [("1KiB", 1024), ("64MiB", 64 << 20), ("1GiB", 1 << 30), ("100B", 100)] {
            assert_eq!(text.parse(), Ok(Size(bytes)));
            assert_eq!(Size(bytes).to_string(), text);
        }
        assert_eq!("1536".parse(), Ok(Size(1536)));
        for wrong in ["", "KiB", "1KB", "-1", "0", "8GiB", "99999999999999999999GiB"] {
            assert!(wrong.parse::<Size>().is_err(), "{wrong}");
        }
    }
}
