//! A study by the workers of a cluster: one run after the other, each coordinated from here.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use strath_rpc::ServerTls;

use super::super::coordinator::check_fence;
use crate::outcome::Failure;
use crate::runtime;

#[derive(Debug, Args)]
pub(super) struct ClusterArguments {
    /// Run after run by workers that come here: strath worker --coordinator ADDR --again
    #[arg(long, value_name = "ADDR", conflicts_with = "jobs")]
    listen: Option<String>,
    /// With --listen: a folder with ca.pem, coordinator.pem and its key.
    #[arg(long, value_name = "DIR", env = "STRATH_CERTS")]
    certs: Option<PathBuf>,
    /// With --listen: beyond loopback without certificates.
    #[arg(long, requires = "listen")]
    insecure: bool,
}

/// Where and how runs are coordinated.
#[derive(Debug, Clone)]
pub(super) struct Cluster {
    address: SocketAddr,
    certs: Option<PathBuf>,
}

impl ClusterArguments {
    /// What was asked for; none without --listen.
    pub(super) fn checked(&self) -> Result<Option<Cluster>, Failure> {
        let Some(listen) = &self.listen else { return Ok(None) };
        let address = runtime::parse(listen)?;
        if address.port() == 0 {
            return Err(Failure::Usage(format!(
                "--listen {listen} has port 0: name one, at which workers find every run"
            )));
        }
        let tls = self.certs.as_deref().map(ServerTls::read).transpose().map_err(Failure::usage)?;
        check_fence(address, tls.is_some(), self.insecure)?;
        Ok(Some(Cluster { address, certs: self.certs.clone() }))
    }
}

impl Cluster {
    /// What a run is started with, beside its configuration and folder.
    pub(super) fn arguments(&self, workers: usize) -> Vec<String> {
        let mut arguments =
            vec!["--listen".into(), self.address.to_string(), "--min-workers".into(), workers.to_string()];
        match &self.certs {
            Some(certs) => arguments.extend(["--certs".into(), certs.display().to_string()]),
            // What is allowed was asked before.
            None => arguments.push("--insecure".into()),
        }
        arguments
    }
}
