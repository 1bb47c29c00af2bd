use anyhow::Result;
use clap::Args;
use gantry_wire::ApiVersion;
use serde_json::{Value, json};

use crate::app::App;
use crate::format::template::render;
use crate::format::time::ansic;
use crate::format::{outln, put};

/// Flags of `version`.
#[derive(Args, Debug)]
pub(crate) struct Version {
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or 'TEMPLATE'
    #[arg(long, short, value_name = "string")]
    pub(crate) format: Option<String>,
}

/// What `--version` prints.
pub(crate) fn print_short(program: &str) -> Result<()> {
    let mut name = program.to_owned();
    if let Some(first) = name.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    outln!("{name} version {}", env!("CARGO_PKG_VERSION"))
}

impl Version {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let client = app.client()?;
        let server = client.get("/version").value().await;
        let mut all = json!({
            "Client": {
                "Version": env!("CARGO_PKG_VERSION"),
                "ApiVersion": client.version().to_string(),
                "DefaultAPIVersion": ApiVersion::MAX.to_string(),
                "Os": std::env::consts::OS,
                "Arch": go_arch(std::env::consts::ARCH),
                "Context": app.context_name(),
            },
            "Server": null,
        });
        let failed = match server {
            Ok(server) => {
                all["Server"] = server;
                None
            }
            Err(error) => Some(error),
        };
        match self.format.as_deref() {
            None | Some("") => put(&text(&all))?,
            Some("json") => outln!("{all}")?,
            Some(template) => {
                // A template that asks for the server is not the reason why there is none.
                let rendered = render(template, &all);
                match (rendered, failed) {
                    (_, Some(error)) if all["Server"].is_null() => return Err(error.into()),
                    (rendered, _) => return outln!("{}", rendered?),
                }
            }
        }
        failed.map_or(Ok(()), |error| Err(error.into()))
    }
}

/// Go's name for a processor.
fn go_arch(arch: &str) -> &str {
    match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

fn text(all: &Value) -> String {
    let client = &all["Client"];
    let word = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let mut out = format!(
        "Client:\n Version:           {}\n API version:       {}\n OS/Arch:           {}/{}\n Context:           {}\n",
        word(client, "Version"),
        word(client, "ApiVersion"),
        word(client, "Os"),
        word(client, "Arch"),
        word(client, "Context"),
    );
    let server = &all["Server"];
    if server.is_null() {
        return out;
    }
    out.push_str(
        &format!("\nServer: {}\n", word(&server["Platform"], "Name")).replace(": \n", ":\n"),
    );
    let components = server["Components"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    for component in components {
        out.push_str(&format!(
            " {}:\n  Version:          {}\n",
            word(component, "Name"),
            word(component, "Version")
        ));
        let details = &component["Details"];
        if word(component, "Name") != "Engine" {
            for (name, value) in details.as_object().into_iter().flatten() {
                out.push_str(&format!(
                    "  {:<18}{}\n",
                    format!("{name}:"),
                    value.as_str().unwrap_or_default()
                ));
            }
            continue;
        }
        out.push_str(&engine(details));
    }
    if components.is_empty() {
        out.push_str(&format!(
            " Engine:\n  Version:          {}\n{}",
            word(server, "Version"),
            engine(server)
        ));
    }
    out
}

fn engine(details: &Value) -> String {
    let word = |name: &str| details[name].as_str().unwrap_or_default();
    let experimental = match &details["Experimental"] {
        Value::Bool(flag) => flag.to_string(),
        other => other.as_str().unwrap_or("false").to_owned(),
    };
    let mut out = format!(
        "  API version:      {} (minimum version {})\n",
        word("ApiVersion"),
        word("MinAPIVersion")
    );
    let build = [
        ("Go version:", word("GoVersion").to_owned()),
        ("Git commit:", word("GitCommit").to_owned()),
        ("Built:", ansic(word("BuildTime"))),
    ];
    for (label, value) in build.iter().filter(|(_, value)| !value.is_empty()) {
        out.push_str(&format!("  {label:<18}{value}\n"));
    }
    out.push_str(&format!(
        "  OS/Arch:          {}/{}\n",
        word("Os"),
        word("Arch")
    ));
    out.push_str(&format!("  Experimental:     {experimental}\n"));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_is_described() {
        let all = json!({
            "Client": {"Version": "1", "ApiVersion": "1.51", "Os": "linux", "Arch": "amd64", "Context": "default"},
            "Server": {"Platform": {"Name": "Engine X"}, "Components": [
                {"Name": "Engine", "Version": "2", "Details": {"ApiVersion": "1.51", "MinAPIVersion": "1.24", "Os": "linux", "Arch": "amd64", "Experimental": "true"}},
                {"Name": "runc", "Version": "3", "Details": {"GitCommit": "abc"}}
            ]}
        });
        let text = text(&all);
        assert!(text.contains("\nServer: Engine X\n Engine:\n  Version:          2\n  API version:      1.51 (minimum version 1.24)\n"), "{text}");
        assert!(
            text.contains(
                "  Experimental:     true\n runc:\n  Version:          3\n  GitCommit:        abc\n"
            ),
            "{text}"
        );
    }
}
