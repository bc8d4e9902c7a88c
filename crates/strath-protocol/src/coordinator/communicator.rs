//! How the GPUs of a generation sum: by NCCL where each rank has one of its own, through their hosts where not.

use strath_core::Rank;
use strath_core::config::{Reduce, Transport};

use super::{Coordinator, Session};
use crate::event::Connection;
use crate::message::{CommunicatorId, Job, Prepared};

impl Coordinator {
    /// Why a worker cannot take part in a run whose GPUs are to sum by themselves.
    pub(super) fn unfit_to_sum_by_itself(
        &self,
        connection: Connection,
        name: &str,
        prepared: &Prepared,
    ) -> Option<String> {
        if self.settings.config.cluster.transport != Transport::Nccl || self.settings.job != Job::Train {
            return None;
        }
        let Some(gpu) = &prepared.gpu else {
            return Some(format!(
                "cluster.transport = \"nccl\", and {name} computes on the processor or finds no libnccl; give it a GPU \
                 (cluster.device) and the library (eval \"$(deploy/cuda/toolchain)\"), or set cluster.transport = \"auto\""
            ));
        };
        let others = self.sessions.iter().filter(|(other, _)| **other != connection);
        let (_, holder) = others.into_iter().find(|(_, session)| session.gpu.as_ref() == Some(gpu))?;
        Some(format!(
            "cluster.transport = \"nccl\", and {name} computes on the GPU of {} ({gpu}): NCCL takes one rank a GPU; give each worker \
             one of its own (cluster.device = \"auto\", strath worker --local-rank), or set cluster.transport = \"auto\"",
            holder.name()
        ))
    }

    /// By what the GPUs of the generation that starts find each other; `None`: their sums go through the hosts.
    pub(super) fn communicator(&self) -> Option<CommunicatorId> {
        let ranks: Vec<&Session> = self.sessions.values().filter(|session| session.rank.is_some()).collect();
        let gpus: Vec<Option<&str>> = ranks.iter().map(|session| session.gpu.as_deref()).collect();
        let cluster = &self.settings.config.cluster;
        let named = ranks.iter().find(|session| session.rank == Some(Rank(0)))?.communicator.clone();
        named.filter(|_| sum_by_themselves(cluster.transport, cluster.reduce, &gpus))
    }
}

/// Whether ranks on these GPUs sum by NCCL: none of the processor, none on another's, and a sum that it has.
fn sum_by_themselves(transport: Transport, reduce: Reduce, gpus: &[Option<&str>]) -> bool {
    let may = matches!(transport, Transport::Nccl | Transport::Auto) && reduce != Reduce::Bf16;
    let is_own = |at: usize| gpus[at].is_some() && !gpus[..at].contains(&gpus[at]);
    may && gpus.len() > 1 && (0..gpus.len()).all(is_own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_sum_by_themselves_where_each_has_a_gpu_of_its_own() {
        let (a, b) = (Some("a"), Some("b"));
        for transport in [Transport::Auto, Transport::Nccl] {
            for reduce in [Reduce::Exact, Reduce::F32] {
                assert!(sum_by_themselves(transport, reduce, &[a, b]));
                for gpus in [&[a][..], &[], &[a, a], &[a, b, a], &[a, None], &[None, None]] {
                    assert!(!sum_by_themselves(transport, reduce, gpus), "{gpus:?}");
                }
            }
            assert!(!sum_by_themselves(transport, Reduce::Bf16, &[a, b]));
        }
        for transport in [Transport::Tcp, Transport::Shm] {
            assert!(!sum_by_themselves(transport, Reduce::Exact, &[a, b]));
        }
    }
}
