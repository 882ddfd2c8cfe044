//! One Parquet file, row by row.

use std::fs::File;
use std::io;
use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, Type as Physical};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, Int64Type};
use parquet::errors::{ParquetError, Result};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{Type, TypePtr};

/// Rows that are in memory at once: a row group.
const ROWS: usize = 32_768;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Int,
    Bool,
    Text,
    /// ns since 1970, in UTC.
    Instant,
}

/// One value; `None`: not known.
#[derive(Clone, Debug)]
pub(super) enum Cell {
    /// An integer, or an instant.
    Int(Option<i64>),
    Bool(Option<bool>),
    Text(Option<String>),
}

impl Cell {
    pub(super) fn int(value: Option<impl Into<i64>>) -> Cell {
        Cell::Int(value.map(Into::into))
    }

    pub(super) fn ns(value: Option<u64>) -> Cell {
        Cell::Int(value.map(|ns| i64::try_from(ns).unwrap_or(i64::MAX)))
    }

    pub(super) fn text(value: Option<impl ToString>) -> Cell {
        Cell::Text(value.map(|value| value.to_string()))
    }
}

/// A file of which one row group is in memory.
pub(super) struct Table {
    writer: SerializedFileWriter<File>,
    columns: Vec<Column>,
    rows: usize,
}

/// The values of one column that are known, and for every row whether it is.
struct Column {
    values: Values,
    known: Vec<i16>,
}

enum Values {
    Int(Vec<i64>),
    Bool(Vec<bool>),
    Text(Vec<ByteArray>),
}

impl Table {
    /// A table with these columns.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(super) fn new(file: File, columns: &[(&str, Kind)]) -> io::Result<Table> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_created_by(concat!("tcptrace ", env!("CARGO_PKG_VERSION")).to_owned())
            .build();
        let schema = schema(columns).map_err(failed)?;
        let writer = SerializedFileWriter::new(file, schema, Arc::new(properties));
        Ok(Table {
            writer: writer.map_err(failed)?,
            columns: columns.iter().map(|(_, kind)| Column::of(*kind)).collect(),
            rows: 0,
        })
    }

    /// Appends a row with a cell for each column.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(super) fn row(&mut self, cells: Vec<Cell>) -> io::Result<()> {
        debug_assert_eq!(cells.len(), self.columns.len());
        for (column, cell) in self.columns.iter_mut().zip(cells) {
            column.push(cell);
        }
        self.rows += 1;
        match self.rows < ROWS {
            true => Ok(()),
            false => self.flush().map_err(failed),
        }
    }

    /// Writes what is left, and the end.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        if self.rows > 0 {
            self.flush().map_err(failed)?;
        }
        self.writer.finish().map(drop).map_err(failed)
    }

    fn flush(&mut self) -> Result<()> {
        let mut group = self.writer.next_row_group()?;
        for column in &mut self.columns {
            let Some(mut writer) = group.next_column()? else {
                break;
            };
            let known = Some(column.known.as_slice());
            match &column.values {
                Values::Int(values) => writer
                    .typed::<Int64Type>()
                    .write_batch(values, known, None)?,
                Values::Bool(values) => writer
                    .typed::<BoolType>()
                    .write_batch(values, known, None)?,
                Values::Text(values) => {
                    let writer = writer.typed::<ByteArrayType>();
                    writer.write_batch(values, known, None)?
                }
            };
            writer.close()?;
            column.clear();
        }
        group.close()?;
        self.rows = 0;
        Ok(())
    }
}

impl Column {
    fn of(kind: Kind) -> Column {
        Column {
            values: match kind {
                Kind::Int | Kind::Instant => Values::Int(Vec::new()),
                Kind::Bool => Values::Bool(Vec::new()),
                Kind::Text => Values::Text(Vec::new()),
            },
            known: Vec::new(),
        }
    }

    fn push(&mut self, cell: Cell) {
        let known = match (&mut self.values, cell) {
            (Values::Int(values), Cell::Int(Some(value))) => {
                values.push(value);
                true
            }
            (Values::Bool(values), Cell::Bool(Some(value))) => {
                values.push(value);
                true
            }
            (Values::Text(values), Cell::Text(Some(value))) => {
                values.push(ByteArray::from(value.into_bytes()));
                true
            }
            _ => false,
        };
        self.known.push(i16::from(known));
    }

    fn clear(&mut self) {
        self.known.clear();
        match &mut self.values {
            Values::Int(values) => values.clear(),
            Values::Bool(values) => values.clear(),
            Values::Text(values) => values.clear(),
        }
    }
}

fn schema(columns: &[(&str, Kind)]) -> Result<TypePtr> {
    let columns = columns.iter().map(|(name, kind)| {
        let (physical, logical) = match kind {
            Kind::Int => (Physical::INT64, None),
            Kind::Bool => (Physical::BOOLEAN, None),
            Kind::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
            Kind::Instant => (Physical::INT64, Some(instant())),
        };
        let column = Type::primitive_type_builder(name, physical)
            .with_repetition(Repetition::OPTIONAL)
            .with_logical_type(logical);
        column.build().map(Arc::new)
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    let schema = Type::group_type_builder("tcptrace").with_fields(columns);
    schema.build().map(Arc::new)
}

fn instant() -> LogicalType {
    LogicalType::timestamp(true, parquet::basic::TimeUnit::NANOS)
}

/// What the disk said, or what is wrong with the table.
fn failed(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(cause) => match cause.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(cause) => io::Error::other(cause),
        },
        error => io::Error::other(error),
    }
}
