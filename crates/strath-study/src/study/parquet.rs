//! The table as a Parquet file: typed columns, for programs that would have to guess them from CSV.

use std::sync::Arc;

use parquet::basic::{LogicalType, Repetition, Type as Physical};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, DoubleType};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::types::{Type, TypePtr};

use super::{Cell, Results, StudyError};

/// The bytes of a Parquet file of the columns and rows of a table, in one row group, uncompressed. A column of numbers is DOUBLE, one in which
/// there is any text is UTF-8, with numbers as CSV has them; a missing cell is null.
///
/// # Errors
/// [`StudyError::Parquet`], where the library that writes it refuses.
pub fn to_parquet(results: &Results) -> Result<Vec<u8>, StudyError> {
    let columns: Vec<Column> = (0..results.columns.len()).map(|at| Column::of(results, at)).collect();
    written(&results.columns, &columns).map_err(|error| StudyError::Parquet { reason: error.to_string() })
}

fn written(names: &[String], columns: &[Column]) -> Result<Vec<u8>, ParquetError> {
    let fields = names.iter().zip(columns).map(|(name, column)| column.field(name).map(Arc::new));
    let schema = Type::group_type_builder("results").with_fields(fields.collect::<Result<_, _>>()?).build()?;
    let properties = Arc::new(WriterProperties::builder().build());
    let mut file = SerializedFileWriter::new(Vec::new(), TypePtr::new(schema), properties)?;
    let mut rows = file.next_row_group()?;
    for column in columns {
        // As many as the schema has.
        let Some(to) = rows.next_column()? else { break };
        column.write(to)?;
    }
    rows.close()?;
    file.into_inner()
}

/// The cells of a column that has one type.
enum Column {
    Numbers(Vec<Option<f64>>),
    Texts(Vec<Option<String>>),
}

impl Column {
    fn of(results: &Results, at: usize) -> Self {
        let cells = || results.rows.iter().map(|row| &row[at]);
        if cells().any(|cell| matches!(cell, Cell::Text(_))) {
            Self::Texts(cells().map(|cell| (*cell != Cell::Missing).then(|| cell.text())).collect())
        } else {
            Self::Numbers(cells().map(Cell::number).collect())
        }
    }

    fn field(&self, name: &str) -> Result<Type, ParquetError> {
        let (physical, logical) = match self {
            Self::Numbers(_) => (Physical::DOUBLE, None),
            Self::Texts(_) => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
        };
        let field = Type::primitive_type_builder(name, physical).with_logical_type(logical);
        field.with_repetition(Repetition::OPTIONAL).build()
    }

    fn write(&self, to: SerializedColumnWriter<'_>) -> Result<(), ParquetError> {
        match self {
            Self::Numbers(cells) => write::<DoubleType>(to, cells.iter().copied()),
            Self::Texts(cells) => {
                write::<ByteArrayType>(to, cells.iter().map(|cell| cell.as_deref().map(ByteArray::from)))
            }
        }
    }
}

fn write<T: DataType>(
    mut to: SerializedColumnWriter<'_>,
    cells: impl Iterator<Item = Option<T::T>>,
) -> Result<(), ParquetError> {
    let cells: Vec<Option<T::T>> = cells.collect();
    // An optional value is defined at level 1; those that are not take no place among the values.
    let levels: Vec<i16> = cells.iter().map(|cell| i16::from(cell.is_some())).collect();
    let values: Vec<T::T> = cells.into_iter().flatten().collect();
    to.typed::<T>().write_batch(&values, Some(&levels), None)?;
    to.close()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::Field;

    use super::*;

    fn read(bytes: &[u8]) -> Results {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        let reader = SerializedFileReader::new(file).unwrap();
        let schema = reader.metadata().file_metadata().schema_descr_ptr();
        let columns = schema.columns().iter().map(|column| column.name().to_string()).collect();
        let cell = |field: &Field| match field {
            Field::Null => Cell::Missing,
            Field::Double(number) => Cell::Number(*number),
            Field::Str(text) => Cell::Text(text.clone()),
            other => panic!("{other:?}"),
        };
        let row = |row: parquet::record::Row| row.get_column_iter().map(|(_, field)| cell(field)).collect();
        let rows = reader.get_row_iter(None).unwrap().map(|found| row(found.unwrap())).collect();
        Results { columns, rows }
    }

    fn text(text: &str) -> Cell {
        Cell::Text(text.into())
    }

    #[test]
    fn what_is_read_back_is_the_table() {
        let (number, missing) = (Cell::Number, Cell::Missing);
        let table = Results {
            columns: ["sam.m", "grid", "gap", "nothing", "notes"].map(String::from).to_vec(),
            rows: vec![
                vec![number(4.0), text("matched, \"small\""), number(0.1 + 0.2), missing.clone(), text("")],
                vec![number(-0.0), text("größer"), missing.clone(), missing.clone(), missing.clone()],
                vec![number(f64::MIN_POSITIVE), missing.clone(), number(1e300), missing.clone(), text("true")],
            ],
        };
        assert_eq!(read(&to_parquet(&table).unwrap()), table);
        let empty = Results { rows: Vec::new(), ..table };
        assert_eq!(read(&to_parquet(&empty).unwrap()), empty);
    }

    #[test]
    fn numbers_among_texts_are_texts_as_csv_has_them() {
        let table = Results {
            columns: vec!["sam.m".into()],
            rows: vec![vec![Cell::Number(0.05)], vec![text("batch")], vec![Cell::Missing]],
        };
        let want = vec![vec![text("0.05")], vec![text("batch")], vec![Cell::Missing]];
        assert_eq!(read(&to_parquet(&table).unwrap()).rows, want);
    }
}
