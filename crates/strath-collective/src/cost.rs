//! How long an all-reduce takes: a model of latency, bandwidth and shared processors, the same numbers in, the same time out.
//!
//! After Thakur, Rabenseifner and Gropp (2005, "Optimization of collective communication operations in MPICH"), on links as
//! [`rates`](crate::rates) has them. L values travel in a bytes as terms, in p as partial sums, in b as results; W ranks on M hosts, H of them on
//! the largest, S segments a chunk. Each algorithm puts *work* on the busiest host: messages and bytes within it, bytes out of
//! its port, bytes added:
//!
//! ```text
//!                    bytes within the host           bytes out of its port       hops
//! exchange           H (H-1) L a                     H (W-H) L a                 1
//! direct             H (H-1) L/W (a + b)             H (W-H) L/W (a + b)         2
//! ring               (H-x) (W-1)/W L (p + b)         x (W-1)/W L (p + b)         2 (W-1)         x: ranks of the host whose right
//! hierarchical       (H-1) L (a + b)                 (M-1)/M L (p + b)           2 (M-1) + 2     neighbour is on another one
//! doubling           H L p a round, lg H rounds      H L p a round, lg M         lg W            built where W is a power of two
//! halving-doubling   (H-1) L (p + b)                 (M-1)/M L (p + b)           2 lg W          predicted only
//!
//! processors   (messages m + bytes κ + added γ) / min(cores, H)
//! port         bytes β
//! busy         the longer of both, and of the shorter one segment's part: S segments overlap, one does not
//! ```
//!
//! and then waits for latency λ:
//!
//! ```text
//! exchange                 busy + λ
//! ring, hierarchical       n hops of max(busy/n, λ + busy/(n S)): segments hide the latency of a chunk that has several
//! direct                   busy + 2 λ + (S - 1) max(0, λ - (W-2)/(W-1) busy/S): a segment's result leaves with the next one's terms;
//!                          meanwhile the exchange with the W - 2 others goes on
//! doubling, halving        busy + λ for every hop; one more exchange of the whole vector each way where W is no power of two
//! ```

use crate::choice::Choice;
use crate::chunk::Cut;
use crate::frame::Phase;
use crate::hosts::Hosts;
use crate::packing::Encoding;
use crate::rates::{Link, Rates};

/// An algorithm whose time can be predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// One that this crate has.
    Built(Choice),
    /// Recursive halving, then doubling (Rabenseifner 2004): pairs exchange half, a quarter and so on of the vector. Not built.
    HalvingDoubling,
}

impl Scheme {
    /// The word for it in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Built(choice) => choice.name(),
            Self::HalvingDoubling => "halving-doubling",
        }
    }
}

/// How ranks are spread over hosts, as far as the model looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spread {
    /// Ranks, W.
    pub ranks: u32,
    /// Hosts, M.
    pub hosts: u32,
    /// Ranks of the largest host, H.
    pub largest: u32,
    /// The most ranks of one host whose right neighbour in the ring is on another one, x.
    pub leaving: u32,
    /// Ranks whose right neighbour is on another host.
    pub crossings: u32,
}

impl Spread {
    /// That of a world or group.
    pub fn of(hosts: &Hosts) -> Self {
        let ranks = hosts.world_size();
        let crosses = |rank: &u32| hosts.of(*rank) != hosts.of((rank + 1) % ranks);
        let leaving = |members: &Vec<u32>| members.iter().filter(|rank| crosses(rank)).count() as u32;
        let members = hosts.members();
        Self {
            ranks,
            hosts: hosts.count(),
            largest: members.iter().map(|m| m.len() as u32).max().unwrap_or(0),
            leaving: members.iter().map(leaving).max().unwrap_or(0),
            crossings: members.iter().map(leaving).sum(),
        }
    }

    /// Hosts filled one after the other with `per_host` consecutive ranks.
    ///
    /// # Panics
    /// Where `per_host` is 0.
    pub fn filled(ranks: u32, per_host: u32) -> Self {
        let hosts = ranks.div_ceil(per_host);
        let crossings = if hosts > 1 { hosts } else { 0 };
        Self { ranks, hosts, largest: ranks.min(per_host), leaving: crossings.min(1), crossings }
    }
}

/// A vector to be summed: how many values, and their bytes on each leg.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Load {
    /// Values, L.
    pub values: f64,
    /// Bytes of a value of a rank's own term, a.
    pub term: f64,
    /// Bytes of a value of a partial sum, p.
    pub partial: f64,
    /// Bytes of a value of the result, b.
    pub result: f64,
    /// By which chunks are cut.
    cut_width: usize,
}

/// Bytes of a value of an exact sum of usual gradients: 6 hold what is below 0.5.
pub const EXACT_PARTIAL_BYTES: f64 = 6.0;

impl Load {
    /// A vector of such a kind. How wide exact sums are differs from rank to rank and is not known beforehand: terms are taken to be
    /// of one micro-batch, partial sums of usual gradients.
    pub fn new(encoding: Encoding, values: usize) -> Self {
        let [term, partial] = match encoding {
            Encoding::Exact => [4.0, EXACT_PARTIAL_BYTES],
            _ => [encoding.width(Phase::Reduce) as f64; 2],
        };
        let (result, cut_width) = (encoding.width(Phase::Gather) as f64, encoding.cut_width());
        Self { values: values as f64, term, partial, result, cut_width }
    }

    /// The same where each rank's term is of several micro-batches.
    #[must_use]
    pub fn of_several(self) -> Self {
        Self { term: self.partial, ..self }
    }

    /// Segments of one of `chunks` chunks among `ranks` ranks.
    fn segments(&self, ranks: f64, chunks: f64) -> f64 {
        Cut::new(self.cut_width, ranks as u32).segments((self.values / chunks).ceil() as usize) as f64
    }

    /// Bytes of terms in the largest segment of a rank's chunk among `ranks` ranks.
    pub fn segment_bytes(&self, ranks: u32) -> f64 {
        let chunk = (self.values / f64::from(ranks)).ceil() as usize;
        Cut::new(self.cut_width, ranks).segment(chunk, 0).len() as f64 * self.term
    }

    /// Whether the whole vector fits one segment.
    pub fn is_one_segment(&self) -> bool {
        Cut::new(self.cut_width, 2).segments(self.values as usize) <= 1
    }
}

/// What an algorithm has the busiest host do. Messages and bytes out of its port are as many as into it.
#[derive(Debug, Clone, Copy, Default)]
struct Work {
    near_messages: f64,
    near_bytes: f64,
    far_messages: f64,
    far_bytes: f64,
    added_bytes: f64,
}

impl Work {
    /// Seconds of processors and of the port.
    fn seconds(&self, rates: &Rates, spread: &Spread) -> (f64, f64) {
        let link = |link: &Link, messages: f64, bytes: f64| messages * link.message_s + bytes * link.byte_s;
        let near = link(&rates.near, self.near_messages, self.near_bytes);
        let far = link(&rates.far, self.far_messages, self.far_bytes);
        let cores = rates.cores.min(f64::from(spread.largest));
        ((near + far + self.added_bytes * rates.add_s_per_byte) / cores, self.far_bytes * rates.far.port_s_per_byte)
    }

    /// Seconds that one of both is busy, where `depth` segments of the work overlap.
    fn busy(&self, rates: &Rates, spread: &Spread, depth: f64) -> f64 {
        let (processors, port) = self.seconds(rates, spread);
        processors.max(port) + processors.min(port) / depth
    }
}

/// Predicted seconds of an all-reduce.
pub fn seconds(scheme: Scheme, load: &Load, spread: &Spread, rates: &Rates) -> f64 {
    if spread.ranks < 2 {
        return 0.0;
    }
    match scheme {
        Scheme::Built(Choice::Exchange) => exchange(load, spread, rates),
        Scheme::Built(Choice::Direct) => direct(load, spread, rates),
        Scheme::Built(Choice::Ring) => ring(load, spread, rates),
        Scheme::Built(Choice::Hierarchical) => hierarchical(load, spread, rates),
        Scheme::Built(Choice::Doubling) => doubling(load, spread, rates),
        Scheme::HalvingDoubling => halving_doubling(load, spread, rates),
    }
}

/// W, M, H and the latency of the farthest hop.
fn terms(spread: &Spread, rates: &Rates) -> (f64, f64, f64, f64) {
    let latency = if spread.hosts > 1 { rates.far.latency_s } else { rates.near.latency_s };
    (f64::from(spread.ranks), f64::from(spread.hosts), f64::from(spread.largest), latency)
}

fn exchange(load: &Load, spread: &Spread, rates: &Rates) -> f64 {
    let (w, _, h, latency) = terms(spread, rates);
    let whole = load.values * load.term;
    let work = Work {
        near_messages: h * (h - 1.0),
        near_bytes: h * (h - 1.0) * whole,
        far_messages: h * (w - h),
        far_bytes: h * (w - h) * whole,
        added_bytes: h * (w - 1.0) * whole,
    };
    work.busy(rates, spread, 1.0) + latency
}

fn direct(load: &Load, spread: &Spread, rates: &Rates) -> f64 {
    let (w, _, h, latency) = terms(spread, rates);
    let segments = load.segments(w, w);
    let slice = load.values / w;
    let both = slice * (load.term + load.result);
    let work = Work {
        near_messages: h * (h - 1.0) * (segments + 1.0),
        near_bytes: h * (h - 1.0) * both,
        far_messages: h * (w - h) * (segments + 1.0),
        far_bytes: h * (w - h) * both,
        added_bytes: h * (w - 1.0) * slice * load.term,
    };
    let busy = work.busy(rates, spread, segments.min(w - 1.0));
    let waits = (latency - (w - 2.0) / (w - 1.0) * busy / segments).max(0.0);
    busy + 2.0 * latency + (segments - 1.0) * waits
}

/// Hops of a chunk from rank to rank, each of which begins once a segment is there.
fn pipeline(hops: f64, latency: f64, busy: f64, segments: f64) -> f64 {
    let chunk = busy / hops;
    hops * chunk.max(latency + chunk / segments)
}

fn ring(load: &Load, spread: &Spread, rates: &Rates) -> f64 {
    let (w, _, h, _) = terms(spread, rates);
    let (leaving, crossings) = (f64::from(spread.leaving), f64::from(spread.crossings));
    let segments = load.segments(w, w);
    let slice = load.values / w;
    // Of the W - 1 partial sums that a rank sends the first is its own term.
    let sums = slice * (load.term + (w - 2.0) * load.partial);
    let sent = sums + (w - 1.0) * slice * load.result;
    let messages = 2.0 * (w - 1.0) * segments;
    let work = Work {
        near_messages: (h - leaving) * messages,
        near_bytes: (h - leaving) * sent,
        far_messages: leaving * messages,
        far_bytes: leaving * sent,
        added_bytes: h * sums,
    };
    let latency = ((w - crossings) * rates.near.latency_s + crossings * rates.far.latency_s) / w;
    pipeline(2.0 * (w - 1.0), latency, work.busy(rates, spread, segments), segments)
}

fn hierarchical(load: &Load, spread: &Spread, rates: &Rates) -> f64 {
    let (w, m, h, _) = terms(spread, rates);
    if m < 2.0 {
        return direct(load, spread, rates);
    }
    let handlers = (w / m).ceil();
    let segments = load.segments(w, m * handlers);
    let first = if h > 1.0 { load.partial } else { load.term };
    let sums = load.values / m * (first + (m - 2.0) * load.partial);
    let work = Work {
        near_messages: h * (h - 1.0) * m * segments * 2.0,
        near_bytes: (h - 1.0) * load.values * (load.term + load.result),
        far_messages: handlers * 2.0 * (m - 1.0) * segments,
        far_bytes: sums + (m - 1.0) / m * load.values * load.result,
        added_bytes: (h - 1.0) * load.values * load.term + sums,
    };
    let within = if h > 1.0 { 2.0 * rates.near.latency_s } else { 0.0 };
    within + pipeline(2.0 * (m - 1.0), rates.far.latency_s, work.busy(rates, spread, segments), segments)
}

/// Rounds within hosts and between them, and whether whole vectors are exchanged before and after, as W is no power of two.
fn rounds(spread: &Spread) -> (f64, f64, bool) {
    let all = spread.ranks.ilog2();
    let near = spread.largest.ilog2().min(all);
    (f64::from(near), f64::from(all - near), !spread.ranks.is_power_of_two())
}

fn doubling(load: &Load, spread: &Spread, rates: &Rates) -> f64 {
    let (_, m, h, latency) = terms(spread, rates);
    let (near, far, is_uneven) = rounds(spread);
    let whole = load.values * load.partial;
    let round = |is_far: bool| {
        let one = if is_far { (0.0, h) } else { (h, 0.0) };
        let work = Work {
            near_messages: one.0,
            near_bytes: one.0 * whole,
            far_messages: one.1,
            far_bytes: one.1 * whole,
            added_bytes: h * whole,
        };
        work.busy(rates, spread, 1.0) + if is_far { rates.far.latency_s } else { rates.near.latency_s }
    };
    let extra = if is_uneven { 2.0 * (round(m > 1.0) - latency) + 2.0 * latency } else { 0.0 };
    near * round(false) + far * round(true) + extra
}

fn halving_doubling(load: &Load, spread: &Spread, rates: &Rates) -> f64 {
    let (_, m, h, latency) = terms(spread, rates);
    let (near, far, is_uneven) = rounds(spread);
    let both = load.values * (load.partial + load.result);
    // Before and after, every second rank of a host sends all it has.
    let extra = if is_uneven { h / 2.0 * both } else { 0.0 };
    let is_far = m > 1.0;
    let work = Work {
        near_messages: h * 2.0 * near,
        near_bytes: (h - 1.0) * both + if is_far { 0.0 } else { extra },
        far_messages: h * 2.0 * far,
        far_bytes: (m - 1.0) / m * both + if is_far { extra } else { 0.0 },
        added_bytes: (h - 1.0) * load.values * load.partial + (m - 1.0) / m * load.values * load.partial,
    };
    let hops =
        2.0 * (near * rates.near.latency_s + far * rates.far.latency_s) + if is_uneven { 2.0 * latency } else { 0.0 };
    work.busy(rates, spread, 1.0) + hops
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(latency_s: f64, port_s_per_byte: f64) -> Link {
        Link { latency_s, port_s_per_byte, message_s: 0.0, byte_s: 0.0 }
    }

    /// Nothing costs but what is asked about: links between hosts.
    fn wires(latency_s: f64, port_s_per_byte: f64) -> Rates {
        Rates { near: link(0.0, 0.0), far: link(latency_s, port_s_per_byte), add_s_per_byte: 0.0, cores: 1.0 }
    }

    fn built(choice: Choice, load: &Load, spread: &Spread, rates: &Rates) -> f64 {
        seconds(Scheme::Built(choice), load, spread, rates)
    }

    fn close(found: f64, want: f64) {
        assert!((found - want).abs() <= 1e-9 * want.abs(), "found {found}, expected {want}");
    }

    #[test]
    fn over_single_ranks_the_formulas_are_those_of_the_literature() {
        // Thakur et al. 2005: a ring takes 2 (p - 1) alpha + 2 (p - 1)/p n beta, Rabenseifner's 2 lg p alpha + 2 (p - 1)/p n beta,
        // recursive doubling lg p (alpha + n beta). One segment a chunk, so that nothing overlaps.
        let (alpha, beta) = (1e-4, 8e-9);
        let rates = wires(alpha, beta);
        for p in [2u32, 4, 8, 64] {
            let load = Load::new(Encoding::Floats, 4096);
            let (n, w) = (4.0 * 4096.0, f64::from(p));
            let spread = Spread::filled(p, 1);
            let moved = 2.0 * (w - 1.0) / w * n * beta;
            close(built(Choice::Ring, &load, &spread, &rates), 2.0 * (w - 1.0) * alpha + moved);
            close(built(Choice::Direct, &load, &spread, &rates), 2.0 * alpha + moved);
            close(built(Choice::Exchange, &load, &spread, &rates), alpha + (w - 1.0) * n * beta);
            let rounds = f64::from(p.ilog2());
            close(built(Choice::Doubling, &load, &spread, &rates), rounds * (alpha + n * beta));
            close(seconds(Scheme::HalvingDoubling, &load, &spread, &rates), 2.0 * rounds * alpha + moved);
        }
    }

    #[test]
    fn segments_hide_the_latency_of_long_chunks_in_a_ring_but_not_among_two_who_go_in_step() {
        let load = Load::new(Encoding::Floats, 32 * 65_536);
        let spread = Spread::filled(2, 1);
        let bytes = 4.0 * load.values;
        let bandwidth_only = built(Choice::Ring, &load, &spread, &wires(0.0, 8e-9));
        close(bandwidth_only, bytes * 8e-9);
        // 16 segments a chunk: a latency of half a chunk's time is hidden by the next segments.
        let half = bytes / 4.0 * 8e-9;
        close(built(Choice::Ring, &load, &spread, &wires(half, 8e-9)), bandwidth_only);
        close(built(Choice::Direct, &load, &spread, &wires(half, 8e-9)), bandwidth_only + 17.0 * half);
    }

    #[test]
    fn a_hosts_sum_crosses_once_in_a_hierarchy() {
        let load = Load::new(Encoding::Integers, 1 << 20);
        let rates = wires(0.0, 1e-9);
        let spread = Spread::filled(8, 4);
        let n = 8.0 * load.values * 1e-9;
        close(built(Choice::Hierarchical, &load, &spread, &rates), n); // 2 (M - 1)/M n
        close(built(Choice::Ring, &load, &spread, &rates), 1.75 * n); // 2 (W - 1)/W n
        close(built(Choice::Direct, &load, &spread, &rates), 4.0 * n); // 2 H (W - H)/W n
    }

    #[test]
    fn ranks_beyond_the_cores_wait_for_each_other() {
        let near = Link { message_s: 5e-6, byte_s: 3e-10, ..link(0.0, 0.0) };
        let rates = |cores| Rates { near, far: link(0.0, 0.0), add_s_per_byte: 1e-10, cores };
        let load = Load::new(Encoding::Floats, 1 << 20);
        let spread = Spread::filled(4, 4);
        for choice in [Choice::Direct, Choice::Ring] {
            let [two, four, eight] = [2.0, 4.0, 8.0].map(|cores| built(choice, &load, &spread, &rates(cores)));
            close(two, 2.0 * four);
            close(eight, four);
        }
    }

    #[test]
    fn the_spread_counts_hosts_and_what_leaves_them() {
        let strewn = Spread::of(&Hosts::new(&[0, 1, 0, 1, 1]));
        assert_eq!(strewn, Spread { ranks: 5, hosts: 2, largest: 3, leaving: 2, crossings: 4 });
        for (ranks, per_host) in [(1, 1), (2, 1), (4, 4), (5, 2), (8, 4)] {
            let labels: Vec<u32> = (0..ranks).map(|rank| rank / per_host).collect();
            assert_eq!(Spread::of(&Hosts::new(&labels)), Spread::filled(ranks, per_host), "{ranks} over {per_host}");
        }
    }

    #[test]
    fn among_very_many_hosts_logarithmic_latency_wins_for_short_vectors() {
        let (spread, rates) = (Spread::filled(4096, 1), wires(2e-5, 8e-11));
        let of = |scheme, values| seconds(scheme, &Load::new(Encoding::Floats, values), &spread, &rates);
        assert!(of(Scheme::HalvingDoubling, 1 << 16) < 0.1 * of(Scheme::Built(Choice::Ring), 1 << 16));
        assert!(of(Scheme::Built(Choice::Doubling), 16) < of(Scheme::HalvingDoubling, 16));
    }
}
