//! The configuration as its users meet it: layers, origins, refusals, and text that reads back as the same.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod effective;
mod layers;
mod refusals;
mod round_trip;
mod support;
