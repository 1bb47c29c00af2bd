use std::path::PathBuf;

use gantry_driver_api::volume::{MountVolume, VolumeInfo, VolumeName};
use gantry_driver_api::{Driver, DriverError, ErrorCode, Mount, MountPlan};
use gantry_driver_registry::Local;
use gantry_store::Batch;

use super::*;

/// Remembers names; refuses those that begin with `bad`.
#[derive(Default)]
struct Memory(Mutex<BTreeSet<String>>);

impl Driver for Memory {}

impl driver::Volume for Memory {
    fn create(
        &self,
        _: &Call<'_>,
        request: driver::volume::CreateVolume,
    ) -> DriverResult<VolumeInfo> {
        if request.name.starts_with("bad") {
            return Err(DriverError::invalid("no such option"));
        }
        self.0.lock().insert(request.name.clone());
        self.get(&Call::default(), VolumeName { name: request.name })
    }
    fn remove(&self, _: &Call<'_>, request: VolumeName) -> DriverResult<()> {
        self.0.lock().remove(&request.name);
        Ok(())
    }
    fn get(&self, _: &Call<'_>, request: VolumeName) -> DriverResult<VolumeInfo> {
        match self.0.lock().contains(&request.name) {
            true => Ok(VolumeInfo {
                mountpoint: Some(PathBuf::from("/v").join(&request.name)),
                name: request.name,
                status: BTreeMap::new(),
            }),
            false => Err(DriverError::new(ErrorCode::NotFound, "no such volume")),
        }
    }
    fn list(&self, _: &Call<'_>, (): ()) -> DriverResult<Vec<VolumeInfo>> {
        Ok(Vec::new())
    }
    fn mount(&self, _: &Call<'_>, request: MountVolume) -> DriverResult<MountPlan> {
        Ok(MountPlan::single(Mount::Bind {
            source: PathBuf::from("/v").join(request.name),
            read_only: false,
        }))
    }
    fn unmount(&self, _: &Call<'_>, _: MountVolume) -> DriverResult<()> {
        Ok(())
    }
}

struct Bench {
    volumes: Arc<Volumes>,
    driver: Arc<Memory>,
    store: Store,
    drivers: Arc<DriverRegistry>,
    _dir: tempfile::TempDir,
}

fn bench() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("state")).unwrap();
    let drivers = Arc::new(DriverRegistry::new());
    let driver = Arc::new(Memory::default());
    drivers.register_local("local", Local::Volume(driver.clone()));
    Bench {
        volumes: Volumes::open(&store, drivers.clone()).unwrap(),
        driver,
        store,
        drivers,
        _dir: dir,
    }
}

fn named(name: &str) -> CreateVolume {
    CreateVolume {
        name: Some(name.into()),
        ..CreateVolume::default()
    }
}

#[tokio::test]
async fn life_of_a_volume() {
    let bench = bench();
    let (made, new) = bench.volumes.create(named("data")).await.unwrap();
    assert!(new && !made.record.anonymous);
    assert_eq!(made.mountpoint, Some("/v/data".into()));
    assert!(!bench.volumes.create(named("data")).await.unwrap().1);

    let user = ContainerId::generate();
    bench.volumes.acquire("data", &user).unwrap();
    let refused = bench.volumes.remove("data", true).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!("remove data: volume is in use - [{user}]")
    );
    assert_eq!(refused.code(), ErrorCode::Conflict);
    bench.volumes.release("data", &user);
    bench.volumes.remove("data", false).await.unwrap();
    let gone = bench.volumes.get("data").await.unwrap_err();
    assert_eq!(gone.to_string(), "get data: no such volume");
    assert!(bench.volumes.remove("data", false).await.is_err());
    bench.volumes.remove("data", true).await.unwrap();
}

#[tokio::test]
async fn the_index_survives() {
    let bench = bench();
    bench.volumes.create(named("data")).await.unwrap();
    let again = Volumes::open(&bench.store, bench.drivers.clone()).unwrap();
    assert_eq!(again.list().await.len(), 1);
}

#[tokio::test]
async fn refusals_leave_nothing() {
    let bench = bench();
    let error = bench.volumes.create(named("bad1")).await.unwrap_err();
    assert_eq!(error.to_string(), "create bad1: no such option");
    assert!(bench.volumes.record("bad1").is_none());
    let error = bench.volumes.create(named("a b")).await.unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("create a b: \"a b\" includes invalid")
    );
    let other = CreateVolume {
        driver: Some("nfs".into()),
        ..named("data")
    };
    let error = bench.volumes.create(other).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "create data: error looking up volume plugin nfs: plugin \"nfs\" not found"
    );
}

#[tokio::test]
async fn orphans_go_and_kept_ones_stay() {
    let bench = bench();
    let owner = ContainerId::generate();
    let anonymous = || CreateVolume {
        owner: Some(owner.clone()),
        ..CreateVolume::default()
    };
    let (orphan, _) = bench.volumes.create(anonymous()).await.unwrap();
    let (kept, _) = bench.volumes.create(anonymous()).await.unwrap();
    let mut batch = Batch::new();
    bench
        .volumes
        .disown(std::iter::once(kept.record.name.clone()), &mut batch)
        .unwrap();
    bench.store.commit(batch).await.unwrap();
    bench.volumes.sweep(|_| false).await;
    assert!(bench.volumes.record(&orphan.record.name).is_none());
    assert!(bench.volumes.record(&kept.record.name).is_some());
    assert_eq!(bench.driver.0.lock().len(), 1);
}
