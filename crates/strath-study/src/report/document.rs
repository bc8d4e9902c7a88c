//! What a report says, before it is a page: words, tables and figures.

use serde_json::{Value, json};

use crate::figure::Figure;

/// A report.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Its title.
    pub title: String,
    /// What is said below it.
    pub lead: String,
    /// Facts: a name with what it is.
    pub facts: Vec<(String, String)>,
    /// Its sections.
    pub sections: Vec<Section>,
}

/// A part of it under a heading.
#[derive(Debug, Clone, PartialEq)]
pub struct Section {
    /// The heading.
    pub title: String,
    /// What it holds.
    pub blocks: Vec<Block>,
}

/// A piece of a section.
#[derive(Debug, Clone, PartialEq)]
pub enum Block {
    /// A paragraph.
    Text(String),
    /// Statements.
    List(Vec<String>),
    /// Numbers in rows and columns.
    Table(Table),
    /// A figure.
    Drawing(Drawing),
}

/// Numbers in rows and columns.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// What stands above it.
    pub caption: String,
    /// Names of the columns, with units.
    pub columns: Vec<String>,
    /// Its rows, a cell for each column.
    pub rows: Vec<Vec<Cell>>,
}

/// A cell.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// What the page shows.
    pub shown: String,
    /// The number behind it, where it is one, in the unit of the column.
    pub number: Option<f64>,
}

/// A figure with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Drawing {
    /// The name of its files, without an ending.
    pub stem: String,
    /// What stands below it.
    pub caption: String,
    /// What is drawn.
    pub figure: Figure,
}

impl Cell {
    /// A text.
    pub fn text(text: impl Into<String>) -> Self {
        Self { shown: text.into(), number: None }
    }

    /// A number with so many digits after the point; nothing where there is none.
    pub fn number(number: Option<f64>, decimals: usize) -> Self {
        let shown = number.map_or_else(|| "–".into(), |number| decimal(number, decimals));
        Self { shown, number }
    }

    /// A probability.
    pub fn p(p: Option<f64>) -> Self {
        Self { shown: p.map_or_else(|| "–".into(), probability), number: p }
    }

    fn json(&self) -> Value {
        self.number.map_or_else(|| json!(self.shown), |number| json!(number))
    }
}

/// A number as it is read: with a real minus sign, and no -0.
pub fn decimal(number: f64, decimals: usize) -> String {
    let text = format!("{number:.decimals$}");
    match text.strip_prefix('-') {
        Some(rest) if rest.chars().all(|c| matches!(c, '0' | '.')) => rest.into(),
        Some(rest) => format!("−{rest}"),
        None => text,
    }
}

/// A probability as it is read.
pub fn probability(p: f64) -> String {
    if p < 0.001 { "< 0.001".into() } else { format!("{p:.3}") }
}

impl Document {
    /// Every number that it shows.
    pub fn json(&self) -> Value {
        let facts: serde_json::Map<String, Value> =
            self.facts.iter().map(|(name, fact)| (name.clone(), json!(fact))).collect();
        let block = |block: &Block| match block {
            Block::Text(text) => json!({"text": text}),
            Block::List(list) => json!({"statements": list}),
            Block::Table(Table { caption, columns, rows }) => {
                let rows: Vec<Vec<Value>> = rows.iter().map(|row| row.iter().map(Cell::json).collect()).collect();
                json!({"table": {"caption": caption, "columns": columns, "rows": rows}})
            }
            Block::Drawing(Drawing { stem, caption, figure }) => {
                json!({"figure": {"name": stem, "caption": caption, "data": figure.data()}})
            }
        };
        let sections: Vec<Value> = (self.sections.iter())
            .map(|section| {
                let blocks: Vec<Value> = section.blocks.iter().map(block).collect();
                json!({"title": section.title, "blocks": blocks})
            })
            .collect();
        json!({"title": self.title, "lead": self.lead, "facts": facts, "sections": sections})
    }

    /// Its figures.
    pub fn drawings(&self) -> impl Iterator<Item = &Drawing> {
        self.sections.iter().flat_map(|section| &section.blocks).filter_map(|block| match block {
            Block::Drawing(drawing) => Some(drawing),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_people_read_them() {
        assert_eq!(
            [decimal(-1.234, 2), decimal(-0.001, 2), decimal(0.0, 1), decimal(12.5, 0)],
            ["−1.23", "0.00", "0.0", "12"].map(String::from)
        );
        assert_eq!((probability(0.0004), probability(0.0126)), ("< 0.001".into(), "0.013".into()));
        assert_eq!(Cell::number(None, 2).shown, "–");
    }

    #[test]
    fn the_numbers_behind_a_table_are_whole() {
        let table = Table {
            caption: "c".into(),
            columns: vec!["m".into(), "error (%)".into()],
            rows: vec![vec![Cell::text("64"), Cell::number(Some(12.345_678), 1)]],
        };
        let section = Section { title: "t".into(), blocks: vec![Block::Table(table)] };
        let document = Document { title: "a".into(), lead: "b".into(), facts: vec![], sections: vec![section] };
        assert_eq!(document.json()["sections"][0]["blocks"][0]["table"]["rows"][0][1], 12.345_678);
    }
}
