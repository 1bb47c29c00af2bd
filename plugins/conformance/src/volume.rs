//! What is promised of a volume driver.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use gantry_driver_api::volume::{CreateVolume, MountVolume, VolumeInfo, VolumeName};
use gantry_driver_api::{DriverResult, ErrorCode, Volume};

use crate::Subject;
use crate::report::{Problem, Report, expect, refused, skip};
use crate::subject::call;

struct Driver(Arc<dyn Volume>);

impl Driver {
    fn of(subject: &Subject) -> Result<Self, Problem> {
        subject
            .volume()
            .map(Self)
            .map_err(|e| Problem::Failed(e.to_string()))
    }

    fn create(&self, name: &str) -> DriverResult<VolumeInfo> {
        self.create_with(name, BTreeMap::new())
    }

    fn create_with(
        &self,
        name: &str,
        options: BTreeMap<String, String>,
    ) -> DriverResult<VolumeInfo> {
        let name = name.into();
        self.0.create(&call(), CreateVolume { name, options })
    }

    fn get(&self, name: &str) -> DriverResult<VolumeInfo> {
        self.0.get(&call(), VolumeName { name: name.into() })
    }

    fn remove(&self, name: &str) -> DriverResult<()> {
        self.0.remove(&call(), VolumeName { name: name.into() })
    }

    fn names(&self) -> DriverResult<Vec<String>> {
        let mut names: Vec<_> = self
            .0
            .list(&call(), ())?
            .into_iter()
            .map(|v| v.name)
            .collect();
        names.sort();
        Ok(names)
    }

    /// Runs `work` on the mounted volume's directory.
    fn mounted(
        &self,
        name: &str,
        work: impl FnOnce(&str) -> std::io::Result<()>,
    ) -> Result<(), Problem> {
        let request = MountVolume {
            name: name.into(),
            consumer: "verify".into(),
        };
        let plan = self.0.mount(&call(), request.clone())?;
        let tree = gantry_sys::mount::detached(&plan)
            .map_err(|e| Problem::Failed(format!("mounting {plan:?}: {e}")))?;
        work(&format!("/proc/self/fd/{}", tree.as_raw_fd()))?;
        drop(tree);
        Ok(self.0.unmount(&call(), request)?)
    }
}

pub(crate) fn verify(subject: &Subject, report: &mut Report) {
    type Run = fn(&Driver) -> Result<(), Problem>;
    let checks: &[(&str, Run)] = &[
        (
            "create is idempotent, and get and list know the volume",
            create,
        ),
        ("other options are AlreadyExists or refused", other_options),
        ("what is written is there at the next mount", data),
        ("remove takes the data, and absent volumes succeed", removal),
        ("absent volumes are NotFound", absent),
        ("usage grows with the data", usage),
    ];
    for &(promise, run) in checks {
        report.check(promise, || run(&Driver::of(subject)?));
    }
    report.check(
        "volumes and their data survive a restart and reconcile",
        || restart(subject),
    );
}

fn create(driver: &Driver) -> Result<(), Problem> {
    let (first, second) = (driver.create("verify-a")?, driver.create("verify-a")?);
    expect(first == second, || format!("{first:?}, then {second:?}"))?;
    expect(first.name == "verify-a", || format!("{first:?}"))?;
    let got = driver.get("verify-a")?;
    expect(got.mountpoint == first.mountpoint, || format!("{got:?}"))?;
    driver.create("verify-b")?;
    let names = driver.names()?;
    expect(names == ["verify-a", "verify-b"], || format!("{names:?}"))?;
    driver.remove("verify-a")?;
    driver.remove("verify-b")?;
    let names = driver.names()?;
    expect(names.is_empty(), || format!("{names:?}"))
}

fn other_options(driver: &Driver) -> Result<(), Problem> {
    driver.create("verify-options")?;
    let options = [("type", "tmpfs"), ("device", "tmpfs")];
    let options = options.map(|(k, v)| (k.to_owned(), v.to_owned()));
    match driver.create_with("verify-options", options.into()) {
        Err(e)
            if matches!(
                e.code,
                ErrorCode::AlreadyExists | ErrorCode::InvalidArgument
            ) => {}
        other => return Err(Problem::Failed(format!("{other:?}"))),
    }
    Ok(driver.remove("verify-options")?)
}

fn data(driver: &Driver) -> Result<(), Problem> {
    driver.create("verify-data")?;
    driver.mounted("verify-data", |dir| fs::write(format!("{dir}/a"), "1"))?;
    let mut text = String::new();
    driver.mounted("verify-data", |dir| {
        text = fs::read_to_string(format!("{dir}/a"))?;
        Ok(())
    })?;
    expect(text == "1", || format!("{text:?}"))?;
    Ok(driver.remove("verify-data")?)
}

fn removal(driver: &Driver) -> Result<(), Problem> {
    driver.create("verify-gone")?;
    driver.mounted("verify-gone", |dir| {
        fs::create_dir(format!("{dir}/deep"))?;
        fs::write(format!("{dir}/deep/a"), "1")
    })?;
    driver.remove("verify-gone")?;
    driver.remove("verify-gone")?;
    driver.create("verify-gone")?;
    let mut left = 0;
    driver.mounted("verify-gone", |dir| {
        left = fs::read_dir(dir)?.count();
        Ok(())
    })?;
    expect(left == 0, || "the data came back".into())?;
    Ok(driver.remove("verify-gone")?)
}

fn absent(driver: &Driver) -> Result<(), Problem> {
    refused(driver.get("verify-nobody"), ErrorCode::NotFound)?;
    let request = MountVolume {
        name: "verify-nobody".into(),
        consumer: "verify".into(),
    };
    refused(
        driver.0.mount(&call(), request.clone()),
        ErrorCode::NotFound,
    )?;
    Ok(driver.0.unmount(&call(), request)?)
}

fn usage(driver: &Driver) -> Result<(), Problem> {
    driver.create("verify-usage")?;
    driver.mounted("verify-usage", |dir| {
        fs::write(format!("{dir}/a"), vec![1; 100_000])
    })?;
    let name = VolumeName {
        name: "verify-usage".into(),
    };
    let usage = driver.0.usage(&call(), name);
    driver.remove("verify-usage")?;
    match usage {
        Err(e) if e.code == ErrorCode::NotImplemented => skip("it does not measure"),
        Err(e) => Err(e.into()),
        Ok(usage) => expect(usage.bytes >= 100_000, || format!("{usage:?}")),
    }
}

fn restart(subject: &Subject) -> Result<(), Problem> {
    let driver = Driver::of(subject)?;
    driver.create("verify-lasting")?;
    driver.mounted("verify-lasting", |dir| fs::write(format!("{dir}/a"), "1"))?;
    drop(driver);
    subject
        .restart()
        .map_err(|e| Problem::Failed(e.to_string()))?;
    let driver = Driver::of(subject)?;
    // Even a volume that core does not know: it may be somebody's data.
    driver.0.reconcile(&call(), Default::default())?;
    let mut text = String::new();
    driver.mounted("verify-lasting", |dir| {
        text = fs::read_to_string(format!("{dir}/a"))?;
        Ok(())
    })?;
    expect(text == "1", || format!("{text:?}"))?;
    Ok(driver.remove("verify-lasting")?)
}
