//! The numbers of a figure as a table: what stands in its CSV.

use std::fmt::Write;

/// A table of texts and numbers under the names of its columns.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Table {
    names: Vec<String>,
    rows: Vec<Vec<Cell>>,
}

/// One value of a table.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell {
    Text(String),
    /// Written with the digits that give the same number when it is read.
    Number(f64),
    /// What the row has no value for.
    Nothing,
}

impl Table {
    /// A table without rows.
    pub(super) fn new<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Self {
        Self { names: names.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    /// Adds a row, of a cell for each name.
    pub(super) fn push(&mut self, row: Vec<Cell>) {
        debug_assert_eq!(row.len(), self.names.len(), "a row has a cell for each column");
        self.rows.push(row);
    }

    /// The table as JSON: `{"columns": [...], "rows": [[...], ...]}`; numbers that are not finite are null.
    pub(super) fn json(&self) -> serde_json::Value {
        let rows: Vec<Vec<serde_json::Value>> =
            self.rows.iter().map(|row| row.iter().map(Cell::json).collect()).collect();
        serde_json::json!({"columns": self.names, "rows": rows})
    }

    /// The table as RFC 4180 has it, with line feeds.
    pub(super) fn csv(&self) -> String {
        let mut csv = String::new();
        line(&mut csv, self.names.iter().map(|name| quoted(name)));
        for row in &self.rows {
            line(&mut csv, row.iter().map(Cell::csv));
        }
        csv
    }
}

impl Cell {
    fn json(&self) -> serde_json::Value {
        match self {
            Self::Text(text) => text.as_str().into(),
            Self::Number(number) => (*number).into(),
            Self::Nothing => serde_json::Value::Null,
        }
    }

    fn csv(&self) -> String {
        match self {
            Self::Text(text) => quoted(text),
            // The shortest digits that give the same bits back; NaN and inf as every reader of tables knows them.
            Self::Number(number) => format!("{number:?}"),
            Self::Nothing => String::new(),
        }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<f64> for Cell {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<Option<f64>> for Cell {
    fn from(number: Option<f64>) -> Self {
        number.map_or(Self::Nothing, Self::Number)
    }
}

fn line(csv: &mut String, cells: impl Iterator<Item = String>) {
    for (i, cell) in cells.enumerate() {
        write!(csv, "{}{cell}", if i == 0 { "" } else { "," }).expect("a string takes any text");
    }
    csv.push('\n');
}

fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_with_all_their_bits() {
        let numbers = [0.1 + 0.2, 1.0 / 3.0, 1e-300, -0.0, f64::MAX, f64::NEG_INFINITY];
        let mut table = Table::new(["value"]);
        for number in numbers {
            table.push(vec![number.into()]);
        }
        let read: Vec<f64> = table.csv().lines().skip(1).map(|line| line.parse().unwrap()).collect();
        assert_eq!(read.iter().map(|x| x.to_bits()).collect::<Vec<_>>(), numbers.map(f64::to_bits));
    }

    #[test]
    fn texts_with_commas_and_quotes_are_quoted() {
        let mut table = Table::new(["series", "a, b", "x"]);
        table.push(vec!["say \"m\"".into(), None.into(), f64::NAN.into()]);
        assert_eq!(table.csv(), "series,\"a, b\",x\n\"say \"\"m\"\"\",,NaN\n");
    }
}
