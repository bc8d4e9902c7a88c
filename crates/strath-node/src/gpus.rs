//! The GPUs of a generation, which sum the descent gradient by themselves.

use std::sync::Arc;
use std::time::Duration;

use strath_collective::Collective;
use strath_core::Rank;
use strath_cuda::nccl::{Communicator, NcclError, UniqueId};
use strath_cuda::{Gpu, GpuError};
use strath_protocol::message::CommunicatorId;

use crate::flat::Flat;
use crate::prepare::Prepared;
use crate::sums::{DescentSum, OnDevice};

/// Ranks whose rings are connected all begin at once: whoever does not come in this time will not.
const CONNECT_DEADLINE: Duration = Duration::from_secs(60);

/// A rank's GPU, where it may sum with others by itself, and the name that rank 0 gives them.
#[derive(Debug, Default)]
pub(crate) struct Offer {
    pub(crate) gpu: Option<String>,
    pub(crate) communicator: Option<CommunicatorId>,
}

impl Offer {
    /// What a rank of several that train offers. A GPU whose NCCL cannot even name a communicator sums through its host.
    pub(crate) fn of(prepared: &Prepared, is_encrypted: bool, rank: Rank) -> Self {
        let gpu = prepared.gpu_that_sums(is_encrypted);
        let Some((gpu, library)) = gpu.and_then(|gpu| Some((gpu, gpu.nccl()?))) else { return Self::default() };
        let name = || library.unique_id().map(|id| CommunicatorId(Box::new(id.0)));
        match (rank == Rank(0)).then(name).transpose() {
            Ok(communicator) => Self { gpu: Some(gpu.identity()), communicator },
            Err(error) => {
                tracing::warn!("{error}; sums go through the hosts");
                Self::default()
            }
        }
    }
}

/// The GPUs of a generation, connected. The ring of their ranks goes on beside them, and says at once when a rank is lost.
#[derive(Debug)]
pub struct Gpus {
    communicator: Communicator,
    peers: Arc<Collective>,
}

impl Gpus {
    /// Connects this rank's GPU to the others'.
    ///
    /// # Errors
    /// [`NcclError`].
    pub fn connect(gpu: &Gpu, id: &CommunicatorId, peers: &Arc<Collective>) -> Result<Self, NcclError> {
        let library =
            gpu.nccl().ok_or(NcclError::Failed { error: GpuError::Library { library: "libnccl" }, hangs: false })?;
        let place = (peers.identity().rank.0, peers.identity().world_size);
        let id = UniqueId(*id.0);
        let communicator = Communicator::connect(gpu, library, &id, place, CONNECT_DEADLINE, || peers.goes_on())?;
        tracing::info!(ranks = place.1, "GPUs sum by NCCL");
        Ok(Self { communicator, peers: peers.clone() })
    }

    /// The sum over all ranks, which all call this: of integers rounded once, so to the bits of one that goes through the hosts.
    ///
    /// # Errors
    /// [`NcclError`].
    ///
    /// # Panics
    /// Where this rank's part lies in the process's memory, or is to be sent as bf16.
    pub fn sum(&mut self, own: DescentSum, deadline: Duration) -> Result<Flat, NcclError> {
        let failed = |error| NcclError::Failed { error, hangs: false };
        let goes_on = || self.peers.goes_on();
        let mut sum = match own.on_device().map_err(failed)? {
            Ok(sum) => sum,
            Err(sum) => unreachable!("GPUs sum integers or f32 of their own memory, not {sum:?}"),
        };
        match &mut sum {
            OnDevice::Integers(sum) => self.communicator.sum_integers(sum, deadline, goes_on)?,
            OnDevice::Floats(sum) => self.communicator.sum_floats(sum, deadline, goes_on)?,
        }
        sum.rounded().map_err(failed)
    }

    /// Ends the communicator in order, once all ranks do.
    ///
    /// # Errors
    /// [`NcclError`].
    pub fn end(&mut self) -> Result<(), NcclError> {
        self.communicator.end()
    }

    /// Ends the communicator as it stands, as its ranks have come apart; whether the device hangs.
    pub fn abort(&mut self) -> bool {
        self.communicator.abort()
    }
}
