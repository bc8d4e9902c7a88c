//! What can be wrong with a figure.

use strath_node::files::FileError;

/// A figure that could not be drawn or written.
#[derive(Debug, thiserror::Error)]
pub enum FigureError {
    /// A part of the figure holds no numbers.
    #[error("{what} is empty: a figure needs at least {needed}")]
    Empty {
        /// The part, with its name.
        what: String,
        /// What it should hold.
        needed: &'static str,
    },
    /// A part of the figure has numbers that its axis cannot show and cannot do without.
    #[error(
        "{what} needs {count} values that its axis cannot show: they are not finite, or not above 0 on a logarithmic axis"
    )]
    NothingToDraw {
        /// The part, with its name.
        what: String,
        /// How many values it has.
        count: usize,
    },
    /// Two parts of the figure do not fit each other.
    #[error("{what} has {found} values where {expected} are due")]
    Count {
        /// The part, with its name.
        what: String,
        /// How many it has.
        found: usize,
        /// How many it should have.
        expected: usize,
    },
    /// More series than there are colours that a reader can tell apart, or more panels than there is room for.
    #[error("the figure has {found} {what}, of which a reader can tell at most {most} apart: split it")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many there may be.
        most: usize,
    },
    /// Coordinates of a grid, or the limits of an axis, that do not increase.
    #[error("{what} must be finite and increase, found {found} after {before}")]
    Order {
        /// The coordinates, with their name.
        what: String,
        /// The first that is not larger than the one before.
        found: f64,
        /// The one before it.
        before: f64,
    },
    /// A name that is not one file's name.
    #[error(
        "a figure's files are named after {found:?}, which is not a plain file name: leave out folders and the ending"
    )]
    Stem {
        /// The name given.
        found: String,
    },
    /// The drawing library refused.
    #[error("cannot make the {format} of the figure: {reason}")]
    Render {
        /// The kind of file.
        format: &'static str,
        /// The library's answer.
        reason: String,
    },
    /// A file could not be written.
    #[error(transparent)]
    File(#[from] FileError),
}
