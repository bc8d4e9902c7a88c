//! The wire format, there and back.

mod counted;
mod refusals;
mod round_trip;
