//! What passes between core and plugins: calls, replies, and the files that plugins come in.

use std::io::Write;
use std::path::Path;
use std::sync::OnceLock;

use gantry_driver_api::{
    Call, Driver, DriverConfig, DriverResult, Invoke, Network, Registry, Remote, Storage, Volume,
    network, registry, storage, volume,
};
use gantry_plugin_host::manifest;
use gantry_plugin_mock::{MockNetwork, MockVolume};
use gantry_plugin_sdk::Log;

use crate::Target;

pub(super) const CALLS: Target = Target {
    name: "plugin_calls",
    run: calls,
    seeds: messages,
    words: &["key", "name", "options", "\u{81}", "\u{90}"],
    rounds: 10_000,
};
pub(super) const REPLIES: Target = Target {
    name: "plugin_replies",
    run: replies,
    seeds: messages,
    words: CALLS.words,
    rounds: 10_000,
};
pub(super) const FILE: Target = Target {
    name: "plugin_file",
    run: file,
    seeds: files,
    words: &["\u{7f}ELF", ".gantry", "kind", "protocol_min"],
    rounds: 3_000,
};

/// Drivers that keep everything in memory.
struct Mocks {
    network: MockNetwork,
    volume: MockVolume,
    _dir: tempfile::TempDir,
}

fn mocks() -> &'static Mocks {
    static MOCKS: OnceLock<Mocks> = OnceLock::new();
    MOCKS.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let config = |name: &str| DriverConfig {
            name: name.into(),
            root: dir.path().into(),
            run: dir.path().into(),
            tag: "00000000".into(),
            options: serde_json::json!({}),
        };
        Mocks {
            network: MockNetwork::new(config("n"), Log::none()).expect("no options are right"),
            volume: MockVolume::new(config("v"), Log::none()).expect("no options are right"),
            _dir: dir,
        }
    })
}

/// A plugin's side: a request for each method.
fn calls(input: &[u8]) {
    let mocks = mocks();
    let call = Call::new("fuzz");
    for (method, _) in network::METHODS {
        let mut reply = Vec::new();
        let _ = network::dispatch(&mocks.network, method, &call, input, &mut reply);
    }
    for (method, _) in volume::METHODS {
        let mut reply = Vec::new();
        let _ = volume::dispatch(&mocks.volume, method, &call, input, &mut reply);
    }
    // Requests of the kinds that have no driver without a disk or a network.
    let _ = gantry_driver_api::decode::<registry::PutManifest>(input);
    let _ = gantry_driver_api::decode::<registry::FinishUpload>(input);
    let _ = gantry_driver_api::decode::<storage::Prepare>(input);
    let _ = gantry_driver_api::decode::<storage::Commit>(input);
    let _ = gantry_driver_api::decode::<DriverConfig>(input);
}

/// A plugin that answers everything with the same bytes.
struct Says<'a>(&'a [u8]);

impl Invoke for Says<'_> {
    fn invoke(&self, _: &str, _: &Call<'_>, _: &[u8], reply: &mut Vec<u8>) -> DriverResult<()> {
        reply.extend_from_slice(self.0);
        Ok(())
    }
}

/// Core's side: a reply of each form.
fn replies(input: &[u8]) {
    let remote = Remote(Says(input));
    let call = Call::new("fuzz");
    let key = || storage::SnapshotKey { key: "k".into() };
    let _ = remote.health(&call);
    let _ = Storage::info(&remote, &call, ());
    let _ = Storage::mounts(&remote, &call, key());
    let _ = Storage::stat(&remote, &call, key());
    let _ = Storage::list(&remote, &call, ());
    let _ = Network::info(&remote, &call, ());
    let _ = Volume::list(&remote, &call, ());
    let _ = Registry::authenticate(&remote, &call, registry::Endpoint::default());
    let at = registry::Repository {
        endpoint: registry::Endpoint::default(),
        repository: "a".into(),
    };
    let request = registry::GetManifest {
        at: at.clone(),
        reference: "1".into(),
    };
    let _ = Registry::fetch_manifest(&remote, &call, request);
    let _ = Registry::list_tags(&remote, &call, at);
}

fn messages() -> Vec<Vec<u8>> {
    let encoded = |value: &dyn Fn(&mut Vec<u8>) -> DriverResult<()>| {
        let mut bytes = Vec::new();
        value(&mut bytes).expect("it can be encoded");
        bytes
    };
    vec![
        encoded(&|into| gantry_driver_api::encode(&volume::VolumeName { name: "v".into() }, into)),
        encoded(&|into| {
            let tags = registry::Tags {
                tags: vec!["a".into(), "b".into()],
            };
            gantry_driver_api::encode(&tags, into)
        }),
        encoded(&|into| {
            let at = registry::Repository {
                endpoint: registry::Endpoint::default(),
                repository: "a".into(),
            };
            let put = registry::PutManifest {
                at,
                reference: "1".into(),
                media_type: "m".into(),
                bytes: b"{}".to_vec(),
            };
            gantry_driver_api::encode(&put, into)
        }),
        // An array and a map that claim to have no end.
        vec![0xdd, 0xff, 0xff, 0xff, 0xff],
        vec![0xdf, 0xff, 0xff, 0xff, 0xff],
        vec![0xc6, 0xff, 0xff, 0xff, 0xff],
    ]
}

fn file(input: &[u8]) {
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(input).expect("it is ours");
    let _ = manifest::read(Path::new("/fuzz.so"), &file);
}

/// The beginnings of programs: this one's is an ELF file like any other.
fn files() -> Vec<Vec<u8>> {
    let own = std::fs::read("/proc/self/exe").unwrap_or_default();
    // A header and one section, by hand: e_shoff 64, one entry of 64 bytes.
    let mut small = own.get(..64).unwrap_or_default().to_vec();
    if small.len() == 64 {
        small[40..48].copy_from_slice(&64_u64.to_le_bytes());
        small[60..64].copy_from_slice(&[1, 0, 0, 0]);
    }
    small.resize(256, 0);
    vec![own.get(..4096).unwrap_or_default().to_vec(), small]
}
