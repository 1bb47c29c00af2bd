use anyhow::{Result, bail};
use clap::Args;
use serde_json::{Map, Value};

use crate::app::App;
use crate::client::segment;
use crate::error::for_each;
use crate::format::units::parse_size;
use crate::format::{outln, put};
use crate::opts::limits::{parse_cpus, parse_memory_swap, restart_policy};
use crate::opts::live::LiveFlags;

/// Flags of `update`.
#[derive(Args, Debug)]
pub(crate) struct Update {
    /// Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)
    #[arg(long, value_name = "uint16")]
    pub(crate) blkio_weight: Option<u16>,
    /// Limit CPU CFS (Completely Fair Scheduler) period
    #[arg(long, value_name = "int")]
    pub(crate) cpu_period: Option<i64>,
    /// Limit CPU CFS (Completely Fair Scheduler) quota
    #[arg(long, value_name = "int")]
    pub(crate) cpu_quota: Option<i64>,
    /// Limit the CPU real-time period in microseconds
    #[arg(long, value_name = "int")]
    pub(crate) cpu_rt_period: Option<i64>,
    /// Limit the CPU real-time runtime in microseconds
    #[arg(long, value_name = "int")]
    pub(crate) cpu_rt_runtime: Option<i64>,
    /// CPU shares (relative weight)
    #[arg(long, short, value_name = "int")]
    pub(crate) cpu_shares: Option<i64>,
    /// Number of CPUs
    #[arg(long, value_name = "decimal", value_parser = parse_cpus)]
    pub(crate) cpus: Option<i64>,
    /// CPUs in which to allow execution (0-3, 0,1)
    #[arg(long, value_name = "string")]
    pub(crate) cpuset_cpus: Option<String>,
    /// MEMs in which to allow execution (0-3, 0,1)
    #[arg(long, value_name = "string")]
    pub(crate) cpuset_mems: Option<String>,
    /// Memory limit
    #[arg(long, short, value_name = "bytes", value_parser = parse_size)]
    pub(crate) memory: Option<i64>,
    /// Memory soft limit
    #[arg(long, value_name = "bytes", value_parser = parse_size)]
    pub(crate) memory_reservation: Option<i64>,
    /// Swap limit equal to memory plus swap: -1 to enable unlimited swap
    #[arg(long, value_name = "bytes", value_parser = parse_memory_swap)]
    pub(crate) memory_swap: Option<i64>,
    /// Tune container pids limit (set -1 for unlimited)
    #[arg(long, value_name = "int")]
    pub(crate) pids_limit: Option<i64>,
    /// Restart policy to apply when a container exits
    #[arg(long, value_name = "string")]
    pub(crate) restart: Option<String>,
    /// Restart the container when it is unhealthy, too
    #[arg(long)]
    pub(crate) restart_unhealthy: Option<bool>,
    /// Kernel memory limit (deprecated)
    #[arg(long = "kernel-memory", value_name = "bytes", value_parser = parse_size, hide = true)]
    _kernel_memory: Option<i64>,
    #[command(flatten)]
    live: LiveFlags,
    #[arg(required = true)]
    containers: Vec<String>,
}

impl Update {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let body = self.body()?;
        let client = app.client()?;
        let mut warnings = String::new();
        let updated = for_each(self.containers, async |name| {
            let path = format!("/containers/{}/update", segment(&name));
            let answer = client.post(path).json(&body)?.value().await?;
            for warning in answer["Warnings"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
            {
                warnings.push_str(&format!("{warning}\n"));
            }
            outln!("{name}")
        })
        .await;
        put(&warnings)?;
        updated
    }

    /// Only what is to change.
    fn body(&self) -> Result<Map<String, Value>> {
        let numbers = [
            ("BlkioWeight", self.blkio_weight.map(i64::from)),
            ("CpuPeriod", self.cpu_period),
            ("CpuQuota", self.cpu_quota),
            ("CpuRealtimePeriod", self.cpu_rt_period),
            ("CpuRealtimeRuntime", self.cpu_rt_runtime),
            ("CpuShares", self.cpu_shares),
            ("NanoCpus", self.cpus),
            ("Memory", self.memory),
            ("MemoryReservation", self.memory_reservation),
            ("MemorySwap", self.memory_swap),
            ("PidsLimit", self.pids_limit),
        ];
        let texts = [
            ("CpusetCpus", &self.cpuset_cpus),
            ("CpusetMems", &self.cpuset_mems),
        ];
        let numbers = numbers
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?.into())));
        let texts = texts
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value.as_deref()?.into())));
        let mut body: Map<String, Value> = numbers.chain(texts).collect();
        let restart = self.restart.as_deref().unwrap_or_default();
        if !restart.is_empty() || self.restart_unhealthy.is_some() {
            let mut policy = restart_policy(restart)?;
            policy.unhealthy = self.restart_unhealthy;
            body.insert("RestartPolicy".into(), serde_json::to_value(policy)?);
        }
        self.live.fill(&mut body)?;
        if body.is_empty() {
            bail!("you must provide one or more flags when using this command");
        }
        Ok(body)
    }
}
