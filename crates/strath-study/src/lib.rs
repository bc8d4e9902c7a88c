//! Studies: sweeps of runs, the statistics of what came of them, and the figures that show it.

pub mod figure;
pub mod landscape;
pub mod report;
pub mod statistics;
pub mod study;
