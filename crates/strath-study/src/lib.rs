//! What is measured of Strath's runs, and the figures that show it.

pub mod figure;
pub mod statistics;
