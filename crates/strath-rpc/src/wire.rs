//! The generated messages and services.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated from proto/strath/v1/strath.proto, which is documented and linted as itself"
)]

tonic::include_proto!("strath.v1");
