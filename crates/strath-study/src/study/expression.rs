//! Derived settings and conditions: arithmetic over keys, as `0.1 * sqrt(sam.m / 64)` or `batch.micro > sam.m`.
//!
//! Numbers, keys, `+ - * / ^`, `sqrt`, `ln`, `exp`, `min`, `max`, `abs` and the rest of exmex's functions; comparisons, `&&` and `||`
//! for conditions. Numbers are f64; a derived value is rounded to 12 digits, so that a library's last bit is not a run's.

use exmex::{Express, FlatExVal, Val};
use toml::Value;

/// A parsed expression.
#[derive(Debug, Clone)]
pub(super) struct Expression {
    /// Boxed, as it is 20 kB.
    parsed: Box<FlatExVal<i64, f64>>,
}

impl Expression {
    /// Parses a text.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let parsed =
            exmex::parse_val::<i64, f64>(&grouped(&for_exmex(text))).map_err(|error| error.msg().to_string())?;
        Ok(Self { parsed: Box::new(parsed) })
    }

    fn evaluate(&self, value_of: impl Fn(&str) -> Option<Value>) -> Result<Val<i64, f64>, String> {
        let mut values = Vec::new();
        for name in self.parsed.var_names() {
            let value = value_of(name).ok_or_else(|| format!("{name} is not set"))?;
            values.push(match value {
                Value::Integer(v) => Val::Float(v as f64),
                Value::Float(v) => Val::Float(v),
                Value::Boolean(v) => Val::Bool(v),
                other => return Err(format!("{name} is {other}, which is no number")),
            });
        }
        self.parsed.eval(&values).map_err(|error| error.msg().to_string())
    }

    /// Its value as a setting's: a whole number where it is one, else rounded to 12 digits.
    pub(super) fn number(&self, value_of: impl Fn(&str) -> Option<Value>) -> Result<Value, String> {
        let number = match self.evaluate(value_of)? {
            Val::Int(v) => v as f64,
            Val::Float(v) => v,
            Val::Error(error) => return Err(error.msg().to_string()),
            _ => return Err("it is no number".into()),
        };
        if !number.is_finite() {
            return Err(format!("its value is {number}"));
        }
        let rounded: f64 = format!("{number:.11e}").parse().unwrap_or(number);
        let is_whole = rounded == rounded.trunc() && rounded.abs() < 1e15;
        Ok(if is_whole { Value::Integer(rounded as i64) } else { Value::Float(rounded) })
    }

    /// Whether it holds.
    pub(super) fn holds(&self, value_of: impl Fn(&str) -> Option<Value>) -> Result<bool, String> {
        match self.evaluate(value_of)? {
            Val::Bool(holds) => Ok(holds),
            Val::Error(error) => Err(error.msg().to_string()),
            _ => Err("it is no condition, such as batch.micro > sam.m".into()),
        }
    }
}

/// The text as exmex takes it: each key, `table.name`, in braces, in which a variable's name may hold a dot, and each number with a decimal
/// point and without an exponent, so that 1 / 2 is no division of whole numbers.
fn for_exmex(text: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    let mut out = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let len = if first.is_ascii_alphabetic() || first == '_' {
            rest.find(|c| !is_part(c)).unwrap_or(rest.len())
        } else if first.is_ascii_digit() || first == '.' {
            // A number, whose exponent is no name.
            let is_number = |(at, c): &(usize, char)| {
                c.is_ascii_digit()
                    || *c == '.'
                    || *c == 'e'
                    || *c == 'E'
                    || (matches!(c, '+' | '-') && rest[..*at].ends_with(['e', 'E']))
            };
            rest.char_indices().take_while(is_number).count()
        } else {
            first.len_utf8()
        };
        let (token, after) = rest.split_at(len);
        match token.parse::<f64>() {
            Ok(number) if first.is_ascii_digit() || first == '.' => {
                let number = number.to_string();
                out.push_str(&number);
                out.push_str(if number.contains('.') { "" } else { ".0" });
            }
            _ if first.is_ascii_alphabetic() && token.contains('.') => out.extend(["{", token, "}"]),
            _ => out.push_str(token),
        }
        rest = after;
    }
    out
}

/// The operands of `||` and `&&` in parentheses: exmex binds those more tightly than comparisons.
fn grouped(text: &str) -> String {
    let parts = |operator: &str| {
        let (mut depth, mut from, mut parts) = (0i32, 0, Vec::new());
        for (at, c) in text.char_indices() {
            match c {
                '(' => depth += 1,
                ')' => depth -= 1,
                _ if depth == 0 && at >= from && text[at..].starts_with(operator) => {
                    parts.push(&text[from..at]);
                    from = at + operator.len();
                }
                _ => {}
            }
        }
        parts.push(&text[from..]);
        parts
    };
    for operator in ["||", "&&"] {
        let parts = parts(operator);
        if parts.len() > 1 {
            return parts.iter().map(|part| format!("({})", grouped(part))).collect::<Vec<_>>().join(operator);
        }
    }
    // Neither at this level: those within parentheses.
    let Some((open, close)) = text.find('(').and_then(|open| Some((open, open + closing(&text[open..])?))) else {
        return text.into();
    };
    format!("{}({}){}", &text[..open], grouped(&text[open + 1..close]), grouped(&text[close + 1..]))
}

/// Where the parenthesis that the text begins with is closed.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0;
    text.char_indices().find_map(|(at, c)| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        (depth == 0).then_some(at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value_of(key: &str) -> Option<Value> {
        match key {
            "sam.m" => Some(Value::Integer(16)),
            "batch.size" => Some(Value::Integer(128)),
            "let.radius" => Some(Value::Float(0.4)),
            "model.kind" => Some(Value::String("mlp".into())),
            _ => None,
        }
    }

    fn number(text: &str) -> Result<Value, String> {
        Expression::parse(text)?.number(value_of)
    }

    #[test]
    fn settings_derive_from_others() {
        assert_eq!(number("0.1 * sqrt(sam.m / 64)"), Ok(Value::Float(0.05)));
        assert_eq!(number("0.05 * batch.size / 64"), Ok(Value::Float(0.1)));
        assert_eq!(number("let.radius * sqrt(sam.m / 64)"), Ok(Value::Float(0.2)));
        assert_eq!(number("2e-1 + 1e+0 + .5 - 3E2"), Ok(Value::Float(-298.3)));
        assert_eq!(number("1 / 64 * sam.m"), Ok(Value::Float(0.25)));
        assert_eq!(number("batch.size / sam.m"), Ok(Value::Integer(8)));
        assert_eq!(number("0.1 + 0.2"), Ok(Value::Float(0.3)));
        assert_eq!(number("max(sam.m, 20) - 2^3"), Ok(Value::Integer(12)));
    }

    #[test]
    fn conditions_hold_or_not() {
        let holds = |text: &str| Expression::parse(text).unwrap().holds(value_of);
        assert_eq!(holds("sam.m < batch.size"), Ok(true));
        assert_eq!(holds("sam.m >= 64 || let.radius == 0"), Ok(false));
        // Comparisons bind more tightly than && and ||, && than ||.
        assert_eq!(holds("let.radius == 0 && sam.m != 64"), Ok(false));
        assert_eq!(holds("let.radius == 0 || sam.m != 64"), Ok(true));
        assert_eq!(holds("sam.m == 16 || let.radius == 0 && sam.m == 3"), Ok(true));
        assert_eq!(holds("(sam.m == 16 || let.radius == 0) && sam.m == 3"), Ok(false));
        assert_eq!(holds("max(sam.m, 20) == 20 && (sam.m == 1 || (sam.m + 1) * 2 > 33)"), Ok(true));
        assert!(holds("sam.m + 1").unwrap_err().contains("no condition"));
    }

    #[test]
    fn what_cannot_be_computed_says_why() {
        assert!(number("sam.roh * 2").unwrap_err().contains("sam.roh is not set"));
        assert!(number("model.kind * 2").unwrap_err().contains("no number"));
        assert!(number("1 / 0").unwrap_err().contains("inf"));
        assert!(number("2 *").is_err() && number("").is_err() && number("sqrt(").is_err());
        assert!(number("sam.m > 3").unwrap_err().contains("no number"));
    }
}
