use anyhow::Result;
use clap::Args;
use gantry_wire::FsckReport;

use crate::app::App;
use crate::error::{ApiError, Exit};
use crate::format::outln;
use crate::format::table::align;
use crate::format::units::human_size;

/// Flags of `system fsck`.
#[derive(Args, Debug)]
pub(crate) struct SystemFsck {
    /// Mend what can be mended
    #[arg(long)]
    repair: bool,
    /// Do not read contents: no hashing of blobs, no comparing of layers
    #[arg(long)]
    quick: bool,
    /// Format output: 'table' or 'json'
    #[arg(long, value_name = "string", default_value = "table", value_parser = ["table", "json"])]
    format: String,
}

impl SystemFsck {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let path = format!("/gantry/fsck?repair={}&quick={}", self.repair, self.quick);
        let report: FsckReport = match app.client()?.post(path).fetch().await {
            Err(error @ ApiError::Unreachable { .. }) => {
                let hint = "Where it does not start, run 'gantryd --fsck' on its machine.";
                return Err(Exit::with(1, format!("{error}\n{hint}")));
            }
            other => other?,
        };
        if self.format == "json" {
            outln!("{}", serde_json::to_string(&report)?)?;
        } else {
            show(&report)?;
        }
        match report.clean {
            true => Ok(()),
            false => Err(Exit::silent(1)),
        }
    }
}

fn show(report: &FsckReport) -> Result<()> {
    if !report.findings.is_empty() {
        let mut text = "FINDING\tOBJECT\tDETAIL\tOUTCOME\n".to_owned();
        for finding in &report.findings {
            let outcome = match (finding.outcome.as_str(), finding.reason.as_str()) {
                ("found", _) => format!("repair: {}", finding.remedy),
                (outcome, "") => outcome.to_owned(),
                (outcome, reason) => format!("{outcome}: {reason}"),
            };
            let (kind, object, detail) = (&finding.kind, &finding.object, &finding.detail);
            text += &format!("{kind}\t{object}\t{detail}\t{outcome}\n");
        }
        outln!("{}", align(&text))?;
    }
    if !report.usage.is_empty() {
        let mut text = "CATEGORY\tFILES\tSIZE\tON DISK\n".to_owned();
        for usage in &report.usage {
            let [bytes, allocated] =
                [usage.bytes, usage.allocated].map(|size| human_size(size as f64));
            let (category, files) = (&usage.category, usage.files);
            text += &format!("{category}\t{files}\t{bytes}\t{allocated}\n");
        }
        outln!("{}", align(&text))?;
    }
    outln!("{}", verdict(report))
}

fn verdict(report: &FsckReport) -> String {
    let count = report.findings.len();
    let left = report
        .findings
        .iter()
        .filter(|finding| finding.outcome != "repaired")
        .count();
    let things = |count: usize| format!("{count} problem{}", if count == 1 { "" } else { "s" });
    match (count, left) {
        (0, _) => "Everything is in order.".into(),
        (_, 0) => format!("{} found and repaired.", things(count)),
        _ if report.repair => format!("{} found, {left} not repaired.", things(count)),
        _ => format!("{} found. Mend with --repair.", things(count)),
    }
}
