//! `--fsck`: the check of a data-root that no daemon works on.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, ensure};
use gantry_driver_registry::DriverRegistry;
use gantry_engine::Offline;
use gantry_store::Store;
use gantry_volume::Volumes;
use gantry_wire::FsckReport;

use crate::boot;
use crate::config::Config;
use crate::flags::Flags;
use crate::lock::Lock;
use crate::paths::Place;

/// What `--fsck` was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Mode {
    /// `repair`: mend what can be mended.
    repair: bool,
    /// `quick`: do not read contents.
    quick: bool,
    /// `json`: print the report as JSON.
    json: bool,
}

impl Mode {
    /// Reads `word,word`.
    ///
    /// # Errors
    /// A word that is none.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut mode = Self::default();
        for word in text.split(',') {
            match word {
                "check" => {}
                "repair" => mode.repair = true,
                "quick" => mode.quick = true,
                "json" => mode.json = true,
                other => {
                    return Err(format!(
                        "unknown word {other:?}: want check, repair, quick, json"
                    ));
                }
            }
        }
        Ok(mode)
    }
}

/// Checks, prints what was found, and says whether all is well.
pub(crate) fn run(mode: Mode, flags: &Flags, config: &Config) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("start the event loop")?;
    let report = runtime.block_on(check(mode, flags, config))?;
    print!("{}", text(mode, &report)?);
    Ok(match report.clean {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

async fn check(mode: Mode, flags: &Flags, config: &Config) -> anyhow::Result<FsckReport> {
    ensure!(
        config.data_root.is_dir(),
        "there is no data-root {}",
        config.data_root.display()
    );
    let place = Place::prepare(&config.data_root, &config.exec_root)?;
    let _lock = Lock::take(&place.data_root)?;
    let store = Store::open(&place.data_root.join("state.redb"))?;
    let unreadable = {
        let store = store.clone();
        tokio::task::block_in_place(|| gantry_engine::set_aside_unreadable(&store, mode.repair))?
    };
    if !unreadable.is_empty() {
        return Ok(gantry_engine::unreadable(unreadable, mode.repair));
    }
    let drivers = Arc::new(DriverRegistry::new());
    boot::load_drivers(flags, config, &place, &drivers)?;
    let images = boot::open_images(config, &place, &store, &drivers)?;
    let offline = Offline {
        volumes: Volumes::open(&store, drivers)?,
        store,
        images,
        data_root: place.data_root,
        exec_root: place.exec_root,
        boot_id: place.boot_id,
    };
    Ok(offline.fsck(mode.repair, mode.quick).await?)
}

fn text(mode: Mode, report: &FsckReport) -> anyhow::Result<String> {
    if mode.json {
        return Ok(format!("{}\n", serde_json::to_string(report)?));
    }
    let mut text = String::new();
    for finding in &report.findings {
        let (kind, object, detail) = (&finding.kind, &finding.object, &finding.detail);
        text += &format!("{kind} {object}: {detail} ({}", finding.outcome);
        if !finding.reason.is_empty() {
            text += &format!(": {}", finding.reason);
        }
        text += ")\n";
    }
    text += if report.clean {
        "clean\n"
    } else {
        "not clean\n"
    };
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        let mode = Mode::parse("repair,json").unwrap();
        assert!(mode.repair && mode.json && !mode.quick);
        assert_eq!(Mode::parse("check").unwrap(), Mode::default());
        assert!(Mode::parse("mend").is_err());
    }
}
