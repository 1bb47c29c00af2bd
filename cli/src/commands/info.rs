use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use crate::app::App;
use crate::format::template::render;
use crate::format::units::binary_size;
use crate::format::{outln, put};

/// Flags of `info`.
#[derive(Args, Debug)]
pub(crate) struct Info {
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or 'TEMPLATE'
    #[arg(long, short, value_name = "string")]
    pub(crate) format: Option<String>,
}

impl Info {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let client = json!({"Version": env!("CARGO_PKG_VERSION"), "Context": app.context_name(), "Debug": false, "Plugins": [], "Warnings": null});
        let info = app.client()?.get("/info").value().await;
        let (mut all, failed) = match info {
            Ok(info) => (info, None),
            Err(error) => (json!({}), Some(error)),
        };
        all["ClientInfo"] = client;
        match self.format.as_deref() {
            None | Some("") => {
                put(&format!(
                    "Client:\n Version:    {}\n Context:    {}\n Debug Mode: false\n\nServer:\n",
                    env!("CARGO_PKG_VERSION"),
                    app.context_name()
                ))?;
                if failed.is_none() {
                    put(&server(&all))?;
                    for warning in strings(&all["Warnings"]) {
                        eprintln!("{warning}");
                    }
                }
            }
            Some("json") => outln!("{all}")?,
            Some(template) if failed.is_none() => outln!("{}", render(template, &all)?)?,
            Some(_) => {}
        }
        failed.map_or(Ok(()), |error| Err(error.into()))
    }
}

fn strings(value: &Value) -> impl Iterator<Item = &str> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

/// Lines of a label and a value; a value that is missing takes its line with it.
struct Lines(String);

impl Lines {
    fn line(&mut self, label: &str, value: &Value) {
        let text = match value {
            Value::Null => return,
            Value::String(text) if text.is_empty() => return,
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        self.0.push_str(&format!(" {label}: {text}\n"));
    }

    fn list(&mut self, label: &str, values: &Value) {
        let words: Vec<&str> = strings(values).collect();
        self.0
            .push_str(&format!("  {label}: {}\n", words.join(" ")));
    }
}

fn server(info: &Value) -> String {
    let mut out = Lines(String::new());
    out.line("Containers", &info["Containers"]);
    for (label, name) in [
        ("Running", "ContainersRunning"),
        ("Paused", "ContainersPaused"),
        ("Stopped", "ContainersStopped"),
    ] {
        out.line(&format!(" {label}"), &info[name]);
    }
    out.line("Images", &info["Images"]);
    out.line("Server Version", &info["ServerVersion"]);
    out.line("Storage Driver", &info["Driver"]);
    for pair in info["DriverStatus"].as_array().into_iter().flatten() {
        out.line(
            &format!(" {}", pair[0].as_str().unwrap_or_default()),
            &pair[1],
        );
    }
    out.line("Logging Driver", &info["LoggingDriver"]);
    out.line("Cgroup Driver", &info["CgroupDriver"]);
    out.line("Cgroup Version", &info["CgroupVersion"]);
    out.0.push_str(" Plugins:\n");
    for (label, name) in [
        ("Volume", "Volume"),
        ("Network", "Network"),
        ("Authorization", "Authorization"),
        ("Log", "Log"),
    ] {
        if info["Plugins"][name]
            .as_array()
            .is_some_and(|list| !list.is_empty())
        {
            out.list(label, &info["Plugins"][name]);
        }
    }
    out.line("Swarm", &info["Swarm"]["LocalNodeState"]);
    let runtimes: Vec<&str> = info["Runtimes"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| name.as_str())
        .collect();
    out.line("Runtimes", &runtimes.join(" ").into());
    out.line("Default Runtime", &info["DefaultRuntime"]);
    out.line("Init Binary", &info["InitBinary"]);
    if let Some(options) = info["SecurityOptions"]
        .as_array()
        .filter(|options| !options.is_empty())
    {
        out.0.push_str(" Security Options:\n");
        options
            .iter()
            .filter_map(Value::as_str)
            .for_each(|option| security(&mut out.0, option));
    }
    for (label, name) in [
        ("Kernel Version", "KernelVersion"),
        ("Operating System", "OperatingSystem"),
        ("OSType", "OSType"),
        ("Architecture", "Architecture"),
        ("CPUs", "NCPU"),
    ] {
        out.line(label, &info[name]);
    }
    out.line(
        "Total Memory",
        &info["MemTotal"]
            .as_f64()
            .map(binary_size)
            .map_or(Value::Null, Value::from),
    );
    out.line("Name", &info["Name"]);
    out.line("ID", &info["ID"]);
    out.line("Docker Root Dir", &info["DockerRootDir"]);
    out.line("Debug Mode", &info["Debug"]);
    for (label, name) in [
        ("HTTP Proxy", "HttpProxy"),
        ("HTTPS Proxy", "HttpsProxy"),
        ("No Proxy", "NoProxy"),
    ] {
        out.line(label, &info[name]);
    }
    for label in strings(&info["Labels"]) {
        out.0.push_str(&format!("  {label}\n"));
    }
    out.line("Experimental", &info["ExperimentalBuild"]);
    let registries = &info["RegistryConfig"];
    out.0.push_str(" Insecure Registries:\n");
    for (name, index) in registries["IndexConfigs"].as_object().into_iter().flatten() {
        if index["Secure"] == false {
            out.0.push_str(&format!("  {name}\n"));
        }
    }
    strings(&registries["InsecureRegistryCIDRs"])
        .for_each(|network| out.0.push_str(&format!("  {network}\n")));
    if strings(&registries["Mirrors"]).next().is_some() {
        out.0.push_str(" Registry Mirrors:\n");
        strings(&registries["Mirrors"]).for_each(|mirror| out.0.push_str(&format!("  {mirror}\n")));
    }
    out.line("Live Restore Enabled", &info["LiveRestoreEnabled"]);
    if let Some(pools) = info["DefaultAddressPools"]
        .as_array()
        .filter(|pools| !pools.is_empty())
    {
        out.0.push_str(" Default Address Pools:\n");
        for pool in pools {
            out.0.push_str(&format!(
                "   Base: {}, Size: {}\n",
                pool["Base"].as_str().unwrap_or_default(),
                pool["Size"]
            ));
        }
    }
    out.0.push('\n');
    out.0
}

/// `name=seccomp,profile=builtin` as a name and its settings below.
fn security(out: &mut String, option: &str) {
    let mut fields = option.split(',');
    let first = fields.next().unwrap_or_default();
    out.push_str(&format!(
        "  {}\n",
        first.strip_prefix("name=").unwrap_or(first)
    ));
    for field in fields {
        let (name, value) = field.split_once('=').unwrap_or((field, ""));
        let mut name = name.to_owned();
        if let Some(letter) = name.get_mut(..1) {
            letter.make_ascii_uppercase();
        }
        out.push_str(&format!("   {name}: {value}\n"));
    }
}
