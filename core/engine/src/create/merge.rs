//! A request's configuration filled up from the image's, as Docker does it.

use gantry_image::ContainerDefaults;
use gantry_model::container::{ContainerConfig, EmptyObject, HealthConfig, StrSlice};

/// Fills `config` with what the image says where the request says nothing.
pub(crate) fn merge(config: &mut ContainerConfig, image: &ContainerDefaults) {
    if config.user.is_empty() {
        config.user.clone_from(&image.user);
    }
    for port in image.exposed_ports.keys() {
        config.exposed_ports.insert(port, EmptyObject {});
    }
    environment(config, &image.env);
    for (name, value) in &image.labels {
        config
            .labels
            .entry(name.clone())
            .or_insert_with(|| value.clone());
    }
    command(config, image);
    health(config, image);
    if config.working_dir.is_empty() {
        config.working_dir.clone_from(&image.working_dir);
    }
    if image.volumes.is_empty() {
        config.volumes = config.volumes.take().filter(|v| !v.is_empty());
    } else {
        let volumes = config.volumes.get_or_insert_default();
        for path in image.volumes.keys() {
            volumes.entry(path.clone()).or_insert(EmptyObject {});
        }
    }
    if config.stop_signal.is_empty() {
        config.stop_signal.clone_from(&image.stop_signal);
    }
    if config.shell.as_ref().is_none_or(|shell| shell.is_empty()) && !image.shell.is_empty() {
        config.shell = Some(StrSlice(image.shell.clone()));
    }
}

/// The request's variables, then those of the image that it does not name.
fn environment(config: &mut ContainerConfig, image: &[String]) {
    let name = |variable: &str| variable.split('=').next().unwrap_or("").to_owned();
    if image.is_empty() {
        // What is empty is shown as `null`, as by dockerd.
        config.env = config.env.take().filter(|env| !env.is_empty());
        return;
    }
    let env = config.env.get_or_insert_default();
    let given: std::collections::HashSet<String> = env.iter().map(|v| name(v)).collect();
    env.extend(image.iter().filter(|v| !given.contains(&name(v))).cloned());
}

/// An entry point of the request makes the image's command meaningless.
fn command(config: &mut ContainerConfig, image: &ContainerDefaults) {
    let absent = |words: &Option<StrSlice>| words.as_ref().is_none_or(|words| words.is_empty());
    if absent(&config.entrypoint) {
        if absent(&config.cmd) {
            config.cmd = image.cmd.clone().map(StrSlice);
            config.args_escaped = image.args_escaped;
        }
        if config.entrypoint.is_none() {
            config.entrypoint = image.entrypoint.clone().map(StrSlice);
        }
    }
    // `--entrypoint ""`: none at all.
    if let Some([only]) = config.entrypoint.as_deref()
        && only.is_empty()
    {
        config.entrypoint = None;
    }
}

fn health(config: &mut ContainerConfig, image: &ContainerDefaults) {
    let Some(image) = &image.healthcheck else {
        return;
    };
    let check = config.healthcheck.get_or_insert_with(HealthConfig::default);
    if check.test.is_empty() {
        check.test.clone_from(&image.test);
    }
    for (mine, theirs) in [
        (&mut check.interval, image.interval),
        (&mut check.timeout, image.timeout),
        (&mut check.start_period, image.start_period),
        (&mut check.start_interval, image.start_interval),
        (&mut check.retries, image.retries),
    ] {
        if *mine == 0 {
            *mine = theirs;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn image() -> ContainerDefaults {
        ContainerDefaults {
            cmd: Some(vec!["serve".into()]),
            entrypoint: Some(vec!["/init".into()]),
            env: vec!["PATH=/bin".into(), "A=image".into()],
            user: "web".into(),
            ..ContainerDefaults::default()
        }
    }

    fn words(list: &Option<StrSlice>) -> Option<Vec<&str>> {
        list.as_ref()
            .map(|list| list.iter().map(String::as_str).collect())
    }

    #[test]
    fn nothing_asked() {
        let mut config = ContainerConfig::default();
        merge(&mut config, &image());
        assert_eq!(words(&config.entrypoint), Some(vec!["/init"]));
        assert_eq!(words(&config.cmd), Some(vec!["serve"]));
        assert_eq!(config.user, "web");
    }

    #[test]
    fn commands_and_entry_points() {
        let ask = |entrypoint: Option<&str>, cmd: Option<&str>| {
            let mut config = ContainerConfig {
                entrypoint: entrypoint.map(|e| StrSlice(vec![e.into()])),
                cmd: cmd.map(|c| StrSlice(vec![c.into()])),
                ..ContainerConfig::default()
            };
            merge(&mut config, &image());
            (
                config.entrypoint.map(|e| e.0.concat()),
                config.cmd.map(|c| c.0.concat()),
            )
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(ask(None, Some("sh")), (some("/init"), some("sh")));
        assert_eq!(ask(Some("sh"), None), (some("sh"), None));
        assert_eq!(ask(Some(""), Some("sh")), (None, some("sh")));
    }

    #[test]
    fn variables() {
        let mut config = ContainerConfig {
            env: Some(vec!["A=mine".into(), "B".into()]),
            ..ContainerConfig::default()
        };
        merge(&mut config, &image());
        assert_eq!(config.env.unwrap(), ["A=mine", "B", "PATH=/bin"]);
        let mut nothing = ContainerConfig {
            env: Some(Vec::new()),
            volumes: Some(BTreeMap::new()),
            ..ContainerConfig::default()
        };
        merge(&mut nothing, &ContainerDefaults::default());
        assert_eq!((nothing.env, nothing.volumes), (None, None));
    }

    #[test]
    fn health_is_filled_field_by_field() {
        let mut config = ContainerConfig {
            healthcheck: Some(HealthConfig {
                interval: 5,
                ..HealthConfig::default()
            }),
            ..ContainerConfig::default()
        };
        let image = ContainerDefaults {
            healthcheck: Some(HealthConfig {
                test: vec!["CMD".into(), "true".into()],
                interval: 9,
                retries: 2,
                ..HealthConfig::default()
            }),
            ..ContainerDefaults::default()
        };
        merge(&mut config, &image);
        let check = config.healthcheck.unwrap();
        assert_eq!((check.interval, check.retries, check.test.len()), (5, 2, 2));
    }
}
