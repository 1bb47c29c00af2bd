use anyhow::Result;
use clap::Args;
use gantry_wire::Reference;
use serde_json::Value;

use crate::app::App;
use crate::format::time::{ago, unix_local};
use crate::format::units::human_size;
use crate::format::{Fields, Layout, ellipsis, print_list, short_id};
use crate::opts::values::{Filter, filters_json, parse_filter};

/// Flags of `ps`.
#[derive(Args, Debug)]
pub(crate) struct Ps {
    /// Show all containers (default shows just running)
    #[arg(long, short)]
    pub(crate) all: bool,
    /// Filter output based on conditions provided
    #[arg(long, short, value_name = "filter", value_parser = parse_filter)]
    pub(crate) filter: Vec<Filter>,
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or 'TEMPLATE'
    #[arg(long, value_name = "string")]
    pub(crate) format: Option<String>,
    /// Show n last created containers (includes all states) (default -1)
    #[arg(long, short = 'n', value_name = "int")]
    pub(crate) last: Option<i64>,
    /// Show the latest created container (includes all states)
    #[arg(long, short)]
    pub(crate) latest: bool,
    /// Don't truncate output
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Only display container IDs
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// Display total file sizes
    #[arg(long, short)]
    pub(crate) size: bool,
}

const LAYOUT: Layout = Layout {
    columns: &[
        ("ID", "CONTAINER ID"),
        ("Image", "IMAGE"),
        ("Command", "COMMAND"),
        ("RunningFor", "CREATED"),
        ("Status", "STATUS"),
        ("Ports", "PORTS"),
        ("Names", "NAMES"),
    ],
    more_headings: &[
        ("CreatedAt", "CREATED AT"),
        ("State", "STATE"),
        ("Size", "SIZE"),
        ("Labels", "LABELS"),
        ("Mounts", "MOUNTS"),
        ("LocalVolumes", "LOCAL VOLUMES"),
        ("Networks", "NETWORKS"),
        ("Platform", "PLATFORM"),
    ],
    quiet: "{{.ID}}",
    raw: "container_id: {{.ID}}\nimage: {{.Image}}\ncommand: {{.Command}}\ncreated_at: {{.CreatedAt}}\nstate: {{- pad .State 1 0}}\nstatus: {{- pad .Status 1 0}}\nnames: {{.Names}}\nlabels: {{- pad .Labels 1 0}}\nports: {{- pad .Ports 1 0}}\n",
};

/// [`LAYOUT`] with the size as its last column.
const WITH_SIZE: Layout = Layout {
    columns: &[
        ("ID", "CONTAINER ID"),
        ("Image", "IMAGE"),
        ("Command", "COMMAND"),
        ("RunningFor", "CREATED"),
        ("Status", "STATUS"),
        ("Ports", "PORTS"),
        ("Names", "NAMES"),
        ("Size", "SIZE"),
    ],
    more_headings: LAYOUT.more_headings,
    quiet: LAYOUT.quiet,
    raw: LAYOUT.raw,
};

impl Ps {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let limit = if self.latest {
            1
        } else {
            self.last.unwrap_or(-1)
        };
        let format = app
            .config()
            .format(self.format.as_deref(), "psFormat", self.quiet);
        let size =
            self.size || !self.quiet && (format.contains(".Size") || format.contains("json ."));
        let containers = app
            .client()?
            .get("/containers/json")
            .flag("all", self.all)
            .maybe("limit", (limit > 0).then(|| limit.to_string()))
            .flag("size", size)
            .maybe("filters", Some(filters_json(&self.filter)))
            .value()
            .await?;
        let rows = containers
            .as_array()
            .into_iter()
            .flatten()
            .map(|container| row(container, !self.no_trunc))
            .collect();
        print_list(
            if self.size { &WITH_SIZE } else { &LAYOUT },
            format,
            self.quiet,
            rows,
        )
    }
}

fn row(container: &Value, truncate: bool) -> Fields {
    let text = |name: &str| container[name].as_str().unwrap_or_default();
    let id = text("Id");
    let command = if truncate {
        ellipsis(text("Command"), 20)
    } else {
        text("Command").to_owned()
    };
    let created = container["Created"].as_i64().unwrap_or(0);
    let mounts = container["Mounts"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let mount_names = mounts.iter().map(|mount| {
        let name = mount["Name"].as_str().filter(|name| !name.is_empty());
        let name = name
            .or_else(|| mount["Source"].as_str())
            .unwrap_or_default();
        if truncate {
            ellipsis(name, 15)
        } else {
            name.to_owned()
        }
    });
    let networks = container["NetworkSettings"]["Networks"].as_object();
    let networks: Vec<&str> = networks
        .into_iter()
        .flatten()
        .map(|(name, _)| name.as_str())
        .collect();
    Fields::default()
        .set("ID", if truncate { short_id(id) } else { id })
        .set("Names", names(container, truncate))
        .set("Image", image(container, truncate))
        .set("Command", quoted(&command))
        .set("CreatedAt", unix_local(created))
        .set("RunningFor", ago(created))
        .set("Ports", ports(&container["Ports"]))
        .set("State", text("State"))
        .set("Status", text("Status"))
        .set("Size", size(container))
        .set("Mounts", mount_names.collect::<Vec<_>>().join(","))
        .set(
            "LocalVolumes",
            mounts
                .iter()
                .filter(|mount| mount["Driver"] == "local")
                .count()
                .to_string(),
        )
        .set("Networks", networks.join(","))
        .set_json(
            "Platform",
            &container["ImageManifestDescriptor"]["platform"],
        )
        .labels(&container["Labels"])
}

fn names(container: &Value, truncate: bool) -> String {
    let names = container["Names"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str);
    let mut names = names.map(|name| name.strip_prefix('/').unwrap_or(name));
    if truncate {
        // A name with a slash in it is a link from another container.
        return names
            .find(|name| !name.contains('/'))
            .unwrap_or_default()
            .to_owned();
    }
    names.collect::<Vec<_>>().join(",")
}

/// The image as rows show it.
pub(super) fn image(container: &Value, truncate: bool) -> String {
    let image = container["Image"].as_str().unwrap_or_default();
    if image.is_empty() {
        return "<no image>".into();
    }
    if !truncate {
        return image.into();
    }
    let id = short_id(container["ImageID"].as_str().unwrap_or_default());
    if id == short_id(image) {
        return id.into();
    }
    match Reference::parse(image) {
        Ok(reference) if reference.digest().is_some() => match reference.tag() {
            Some(tag) => format!("{}:{tag}", reference.familiar_name()),
            None => reference.familiar_name(),
        },
        _ => image.into(),
    }
}

/// Go's `strconv.Quote`.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if (c as u32) < 32 || c as u32 == 127 => {
                out.push_str(&format!("\\x{:02x}", c as u32))
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn size(container: &Value) -> String {
    let bytes = |name: &str| container[name].as_f64().unwrap_or(0.0);
    let own = human_size(bytes("SizeRw"));
    if bytes("SizeRootFs") > 0.0 {
        return format!("{own} (virtual {})", human_size(bytes("SizeRootFs")));
    }
    own
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Mapping<'a> {
    private: u64,
    ip: &'a str,
    public: u64,
    kind: &'a str,
}

/// `0.0.0.0:80->8080/tcp, 9000-9002/udp`: neighbours that are published under their own number are drawn together.
fn ports(value: &Value) -> String {
    let mut mappings: Vec<Mapping<'_>> = value
        .as_array()
        .into_iter()
        .flatten()
        .map(|port| Mapping {
            private: port["PrivatePort"].as_u64().unwrap_or(0),
            ip: port["IP"].as_str().unwrap_or_default(),
            public: port["PublicPort"].as_u64().unwrap_or(0),
            kind: port["Type"].as_str().unwrap_or_default(),
        })
        .collect();
    mappings.sort();
    let mut groups: Vec<(Mapping<'_>, u64)> = Vec::new();
    let (mut done, mut single) = (Vec::new(), Vec::new());
    for mapping in mappings {
        if !mapping.ip.is_empty() && mapping.public != mapping.private {
            single.push(format!(
                "{}->{}/{}",
                join(mapping.ip, &mapping.public.to_string()),
                mapping.private,
                mapping.kind
            ));
            continue;
        }
        match groups
            .iter_mut()
            .find(|(first, _)| first.ip == mapping.ip && first.kind == mapping.kind)
        {
            Some((_, last)) if *last + 1 == mapping.private => *last = mapping.private,
            Some(group) => {
                let closed = std::mem::replace(group, (mapping.clone(), mapping.private));
                done.push(range(&closed.0, closed.1));
            }
            None => groups.push((mapping.clone(), mapping.private)),
        }
    }
    done.extend(groups.iter().map(|(first, last)| range(first, *last)));
    done.extend(single);
    done.join(", ")
}

fn range(first: &Mapping<'_>, last: u64) -> String {
    let numbers = if first.private == last {
        last.to_string()
    } else {
        format!("{}-{last}", first.private)
    };
    if first.ip.is_empty() {
        return format!("{numbers}/{}", first.kind);
    }
    format!("{}->{numbers}/{}", join(first.ip, &numbers), first.kind)
}

fn join(ip: &str, port: &str) -> String {
    if ip.contains(':') {
        format!("[{ip}]:{port}")
    } else {
        format!("{ip}:{port}")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ports_are_grouped() {
        let port = |ip: &str, public: u16, private: u16| json!({"IP": ip, "PrivatePort": private, "PublicPort": public, "Type": "tcp"});
        assert_eq!(
            ports(&json!([port("0.0.0.0", 8080, 80), port("::", 8080, 80)])),
            "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"
        );
        assert_eq!(
            ports(
                &json!([port("0.0.0.0", 81, 81), port("0.0.0.0", 80, 80), {"PrivatePort": 9, "Type": "udp"}])
            ),
            "9/udp, 0.0.0.0:80-81->80-81/tcp"
        );
        assert_eq!(
            ports(&json!([{"PrivatePort": 5, "Type": "tcp"}, {"PrivatePort": 7, "Type": "tcp"}])),
            "5/tcp, 7/tcp"
        );
        assert_eq!(ports(&Value::Null), "");
    }

    #[test]
    fn links_and_digests_are_left_out_of_short_rows() {
        let container = json!({"Names": ["/other/link", "/web"], "Image": format!("busybox@sha256:{}", "a".repeat(64)), "ImageID": "sha256:123"});
        assert_eq!(names(&container, true), "web");
        assert_eq!(names(&container, false), "other/link,web");
        assert_eq!(image(&container, true), "busybox");
        assert_eq!(quoted("a\"b\n"), "\"a\\\"b\\n\"");
    }
}
