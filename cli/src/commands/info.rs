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

    /// Members of `info` under their labels.
    fn members(&mut self, info: &Value, members: &[(&str, &str)]) {
        for (label, name) in members {
            self.line(label, &info[*name]);
        }
    }

    /// A heading and its items, unless there are none.
    fn section<'v>(&mut self, heading: &str, items: impl Iterator<Item = &'v str>) {
        let mut items = items.peekable();
        if items.peek().is_some() {
            self.0.push_str(&format!(" {heading}:\n"));
            items.for_each(|item| self.0.push_str(&format!("  {item}\n")));
        }
    }
}

fn server(info: &Value) -> String {
    let mut out = Lines(String::new());
    let counts = [
        ("Containers", "Containers"),
        (" Running", "ContainersRunning"),
        (" Paused", "ContainersPaused"),
        (" Stopped", "ContainersStopped"),
        ("Images", "Images"),
        ("Server Version", "ServerVersion"),
        ("Storage Driver", "Driver"),
    ];
    out.members(info, &counts);
    for pair in info["DriverStatus"].as_array().into_iter().flatten() {
        out.line(
            &format!(" {}", pair[0].as_str().unwrap_or_default()),
            &pair[1],
        );
    }
    let drivers = [
        ("Logging Driver", "LoggingDriver"),
        ("Cgroup Driver", "CgroupDriver"),
        ("Cgroup Version", "CgroupVersion"),
    ];
    out.members(info, &drivers);
    plugins(&mut out, info);
    out.line("Swarm", &info["Swarm"]["LocalNodeState"]);
    let runtimes = info["Runtimes"].as_object().into_iter().flatten();
    let runtimes: Vec<&str> = runtimes.map(|(name, _)| name.as_str()).collect();
    out.line("Runtimes", &runtimes.join(" ").into());
    out.members(
        info,
        &[
            ("Default Runtime", "DefaultRuntime"),
            ("Init Binary", "InitBinary"),
        ],
    );
    for (label, name) in [
        ("containerd", "ContainerdCommit"),
        ("runc", "RuncCommit"),
        ("init", "InitCommit"),
    ] {
        out.line(&format!("{label} version"), &info[name]["ID"]);
    }
    if strings(&info["SecurityOptions"]).next().is_some() {
        out.0.push_str(" Security Options:\n");
        strings(&info["SecurityOptions"]).for_each(|option| security(&mut out.0, option));
    }
    host(&mut out, info);
    registries(&mut out, &info["RegistryConfig"]);
    out.line("Live Restore Enabled", &info["LiveRestoreEnabled"]);
    address_pools(&mut out, info);
    out.0.push('\n');
    out.0
}

fn plugins(out: &mut Lines, info: &Value) {
    out.0.push_str(" Plugins:\n");
    for kind in ["Volume", "Network", "Authorization", "Log"] {
        let names: Vec<&str> = strings(&info["Plugins"][kind]).collect();
        if !names.is_empty() {
            out.0.push_str(&format!("  {kind}: {}\n", names.join(" ")));
        }
    }
}

fn host(out: &mut Lines, info: &Value) {
    let machine = [
        ("Kernel Version", "KernelVersion"),
        ("Operating System", "OperatingSystem"),
        ("OSType", "OSType"),
        ("Architecture", "Architecture"),
        ("CPUs", "NCPU"),
    ];
    out.members(info, &machine);
    let memory = info["MemTotal"].as_f64().map(binary_size);
    out.line("Total Memory", &memory.map_or(Value::Null, Value::from));
    let daemon = [
        ("Name", "Name"),
        ("ID", "ID"),
        ("Docker Root Dir", "DockerRootDir"),
    ];
    out.members(info, &daemon);
    out.line("Debug Mode", &(info["Debug"] == true).into());
    let proxies = [
        ("HTTP Proxy", "HttpProxy"),
        ("HTTPS Proxy", "HttpsProxy"),
        ("No Proxy", "NoProxy"),
    ];
    out.members(info, &proxies);
    out.section("Labels", strings(&info["Labels"]));
    out.line("Experimental", &info["ExperimentalBuild"]);
}

fn registries(out: &mut Lines, registries: &Value) {
    let insecure = registries["IndexConfigs"].as_object().into_iter().flatten();
    let insecure = insecure
        .filter(|(_, index)| index["Secure"] == false)
        .map(|(name, _)| name.as_str());
    let networks = strings(&registries["InsecureRegistryCIDRs"]);
    out.section("Insecure Registries", insecure.chain(networks));
    let others = registries["IndexConfigs"].as_object().into_iter().flatten();
    let others: Vec<String> = others
        .filter(|(_, index)| index["Official"] != true)
        .flat_map(|(name, index)| {
            strings(&index["Mirrors"]).map(move |url| format!("{name}={url}"))
        })
        .collect();
    let mirrors = strings(&registries["Mirrors"]).chain(others.iter().map(String::as_str));
    out.section("Registry Mirrors", mirrors);
    let limits = registries["RateLimits"].as_object().into_iter().flatten();
    let limits: Vec<String> = limits
        .map(|(name, limit)| {
            format!(
                "{name}: {} of {} pulls left (told {})",
                limit["Remaining"],
                limit["Limit"],
                limit["Told"].as_str().unwrap_or_default()
            )
        })
        .collect();
    out.section("Registry Rate Limits", limits.iter().map(String::as_str));
}

fn address_pools(out: &mut Lines, info: &Value) {
    let pools = info["DefaultAddressPools"].as_array().into_iter().flatten();
    let base = |pool: &Value| pool["Base"].as_str().unwrap_or_default().to_owned();
    let lines: Vec<String> = pools
        .map(|pool| format!(" Base: {}, Size: {}", base(pool), pool["Size"]))
        .collect();
    out.section("Default Address Pools", lines.iter().map(String::as_str));
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
