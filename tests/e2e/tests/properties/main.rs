//! Every property that a container can be asked for: looked at from inside a container or at its control group, or refused
//! in Docker's words. `tests/checklists/properties.tsv` says which check sees which property; what is in the API and not
//! in the table, in the table and not seen, or seen and not in the table, fails.

mod binds;
mod bodies;
mod config;
mod devices;
mod health;
mod lab;
mod life;
mod logs;
mod mounts;
mod namespaces;
mod network;
mod options;
mod process;
mod resources;
mod security;
mod table;
mod windows;

use std::collections::BTreeSet;
use std::sync::Mutex;

use gantry_e2e::{Engine, Options, busybox_tar};
use lab::{Lab, RICH, Seen};

/// As many containers as are started at once.
const WORKERS: usize = 4;

type Check = fn(&Lab<'_>, &Seen);

macro_rules! checks {
    ($($module:ident::$function:ident),* $(,)?) => {
        &[$((concat!(stringify!($module), ".rs::", stringify!($function)), $module::$function as Check)),*]
    };
}

const CHECKS: &[(&str, Check)] = checks![
    life::restarts,
    life::stops,
    life::removes_itself,
    health::fields,
    health::start_period,
    process::identity,
    process::commands,
    process::streams,
    process::terminal,
    config::kept,
    config::image_says,
    config::anonymous_volumes,
    resources::memory,
    resources::cpu,
    resources::realtime,
    resources::pids,
    resources::block_io,
    resources::parent,
    options::limits_of_the_process,
    options::shm_and_init,
    options::annotations_and_runtime,
    options::storage,
    devices::nodes_and_rules,
    devices::requests,
    namespaces::own_and_host,
    namespaces::shared,
    security::capabilities,
    security::paths,
    security::options,
    binds::binds,
    binds::long_binds,
    binds::read_only_binds,
    binds::propagation,
    mounts::volumes,
    mounts::subpaths,
    mounts::images,
    mounts::memory,
    mounts::from_others,
    network::resolver,
    network::ports,
    network::endpoints,
    network::addresses,
    network::links,
    logs::driver_and_options,
    windows::only,
    bodies::go_reads_them,
];

#[test]
fn every_property_is_seen() {
    let runtimes = tempfile::tempdir().unwrap();
    let engine = start(runtimes.path());
    let todo = Mutex::new(CHECKS.iter());
    let done = Mutex::new((BTreeSet::new(), Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                let lab = Lab { engine: &engine };
                loop {
                    let Some((name, check)) = todo.lock().unwrap().next() else {
                        return;
                    };
                    let (properties, faults) = one(&lab, *check);
                    let mut done = done.lock().unwrap();
                    let test = format!("{}{name}", table::HERE);
                    done.0
                        .extend(properties.into_iter().map(|p| (p, test.clone())));
                    done.1
                        .extend(faults.into_iter().map(|f| format!("{name}: {f}")));
                }
            });
        }
    });
    let (seen, mut faults) = done.into_inner().unwrap();
    let listed: BTreeSet<(String, String)> = table::rows()
        .into_iter()
        .flat_map(|row| {
            row.tests
                .into_iter()
                .map(move |t| (row.property.clone(), t))
        })
        .filter(|(_, test)| test.starts_with(table::HERE))
        .collect();
    for (property, test) in listed.difference(&seen) {
        faults.push(format!(
            "{property}: listed, but {test} does not look at it"
        ));
    }
    for (property, test) in seen.difference(&listed) {
        faults.push(format!(
            "{property}: seen by {test}, which the table does not say"
        ));
    }
    // Before what is left behind is looked for: a fault may be why.
    eprintln!(
        "{}",
        faults.join(
            "
"
        )
    );
    engine.finish();
    assert!(faults.is_empty());
}

/// A check that panics is a fault like others.
fn one(lab: &Lab<'_>, check: Check) -> (BTreeSet<String>, Vec<String>) {
    let seen = Seen::new();
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(lab, &seen)));
    let (properties, mut faults) = seen.into_parts();
    if let Err(panic) = outcome {
        let words = panic.downcast_ref::<String>().map(String::as_str);
        let words = words.or_else(|| panic.downcast_ref::<&str>().copied());
        faults.push(words.unwrap_or("panicked").to_owned());
    }
    (properties, faults)
}

/// An engine with the images and the runtime that the checks need.
fn start(runtimes: &std::path::Path) -> Engine {
    let engine = Engine::with(Options {
        config: Some(options::runtimes(runtimes)),
        ..Options::default()
    });
    engine.import_busybox(lab::IMAGE);
    let mut import = vec!["import"];
    for change in config::RICH_CHANGES {
        import.extend(["--change", *change]);
    }
    import.extend([busybox_tar(), RICH]);
    engine.docker(&import).ok();
    engine
}

#[test]
fn the_table_is_whole() {
    let rows = table::rows();
    let listed: BTreeSet<String> = rows.iter().map(|row| row.property.clone()).collect();
    assert_eq!(
        listed.len(),
        rows.len(),
        "a property stands in the table twice"
    );
    let missing: Vec<_> = table::api().difference(&listed).cloned().collect();
    assert!(
        missing.is_empty(),
        "in the API, not in the table: {missing:?}"
    );
    for row in &rows {
        let known = ["works", "refused", "kept", "shown", "not here"].contains(&row.state.as_str());
        assert!(known, "{}: state {:?}", row.property, row.state);
        assert!(!row.tests.is_empty(), "{}: no test", row.property);
        for test in row.tests.iter().chain(&row.v2) {
            assert!(table::exists(test), "{}: there is no {test}", row.property);
        }
    }
}
