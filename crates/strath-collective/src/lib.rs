//! Strath's data plane: sums of vectors over the ranks of a generation, to the same bits whatever the route.
//!
//! ```text
//!  all_reduce(step, bucket, group, payload, fault)                                        Pending::wait
//!        │                                                                                     ▲
//!        ▼                                                                                     │
//!   collective ──► choice ──► a pure machine: segments in, commands out ──► Reduced, Fault
//!                                │  ▲
//!                                ▼  │         frame: the header of every segment
//!                             transport       non-blocking TCP, driven by whoever waits
//! ```
//!
//! The rooms: [`ring`], [`direct`], [`exchange`] and [`hierarchical`] are the algorithms, on what they share in [`reduction`]; [`chunk`] says who
//! owns what, [`packing`] how values travel ([`fewest`]: exact sums in few bytes; `totals`: complete sums in one pass), [`frame`] what
//! stands above them, `checksum` what finds damage on the way, [`spares`] what memory is at hand. [`choice`] says which algorithm serves a message, by what [`cost`] predicts
//! from the [`rates`] of links (measured with a [`shift`]) and from the [`hosts`] of ranks. None of these performs IO or reads a clock.
//! Only `transport` does; [`tls`] says who may be at the other end, where workers have certificates.

mod arithmetic;
pub mod bucket;
mod checksum;
pub mod choice;
pub mod chunk;
pub mod collective;
pub mod cost;
pub mod direct;
pub mod doubling;
mod encoding;
pub mod error;
pub mod exchange;
pub mod fewest;
pub mod frame;
pub mod hierarchical;
pub mod hosts;
pub mod machine;
pub mod packing;
pub mod payload;
pub mod rates;
pub mod reduction;
pub mod ring;
pub mod shift;
pub mod spares;
pub mod tls;
mod totals;
mod transport;

pub use bucket::Bucket;
pub use checksum::{Checksum, checksum};
pub use choice::Choice;
pub use collective::{Collective, FULL_MESH_LIMIT, Identity, Member, Pending};
pub use error::{CollectiveError, Mismatch};
pub use payload::{Payload, Reduced};
pub use tls::RingTls;
#[doc(hidden)]
pub use transport::untrusted;
pub use transport::{DONOR, FeedReceiver, FeedSender, NEWCOMER, Patience, listen};
