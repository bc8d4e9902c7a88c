//! A file for each command.

pub mod bench;
pub mod certs;
pub mod config;
pub mod coordinator;
pub mod data;
pub mod drain;
pub mod eval;
pub mod measure;
pub mod report;
pub mod status;
pub mod study;
pub mod train;
pub mod worker;
