//! The wire format, there and back.

mod refusals;
mod round_trip;
