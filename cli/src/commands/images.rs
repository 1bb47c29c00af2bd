use std::collections::BTreeMap;

use anyhow::{Result, bail};
use clap::Args;
use gantry_wire::{ImageSummary, Reference};
use serde_json::Value;

use super::image_tree;
use crate::app::App;
use crate::format::time::{ago, unix_local};
use crate::format::units::{human_size, human_size_4};
use crate::format::{Fields, Layout, print_list, put, short_id};
use crate::opts::values::{Filter, filters_json, parse_filter};
use crate::terminal;

/// Flags of `images`.
#[derive(Args, Debug)]
pub(crate) struct Images {
    /// Show all images (default hides intermediate images)
    #[arg(long, short)]
    pub(crate) all: bool,
    /// Show digests
    #[arg(long)]
    pub(crate) digests: bool,
    /// Filter output based on conditions provided
    #[arg(long, short, value_name = "filter", value_parser = parse_filter)]
    pub(crate) filter: Vec<Filter>,
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or 'TEMPLATE'
    #[arg(long, value_name = "string")]
    pub(crate) format: Option<String>,
    /// Don't truncate output
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Only show image IDs
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// List multi-platform images as a tree (EXPERIMENTAL)
    #[arg(long)]
    pub(crate) tree: bool,
    #[arg(value_name = "REPOSITORY[:TAG]")]
    reference: Option<String>,
}

const HEADINGS: &[(&str, &str)] = &[
    ("Digest", "DIGEST"),
    ("CreatedAt", "CREATED AT"),
    ("Containers", "CONTAINERS"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
    ("VirtualSize", "SIZE"),
];
const RAW: &str = "repository: {{.Repository}}\ntag: {{.Tag}}\nimage_id: {{.ID}}\ncreated_at: {{.CreatedAt}}\nvirtual_size: {{.Size}}\n";
const LAYOUT: Layout = Layout {
    columns: &[
        ("Repository", "REPOSITORY"),
        ("Tag", "TAG"),
        ("ID", "IMAGE ID"),
        ("CreatedSince", "CREATED"),
        ("Size", "SIZE"),
    ],
    more_headings: HEADINGS,
    quiet: "{{.ID}}",
    raw: RAW,
};
const WITH_DIGESTS: Layout = Layout {
    columns: &[
        ("Repository", "REPOSITORY"),
        ("Tag", "TAG"),
        ("Digest", "DIGEST"),
        ("ID", "IMAGE ID"),
        ("CreatedSince", "CREATED"),
        ("Size", "SIZE"),
    ],
    more_headings: HEADINGS,
    quiet: "{{.ID}}",
    raw: RAW,
};

impl Images {
    pub(crate) async fn execute(mut self, app: &App) -> Result<()> {
        if let Some(reference) = self.reference.take() {
            self.filter.push(Filter {
                name: "reference".into(),
                value: reference,
            });
        }
        if self.tree {
            return self.tree(app).await;
        }
        let images = app
            .client()?
            .get("/images/json")
            .flag("all", self.all)
            .maybe("filters", Some(filters_json(&self.filter)))
            .value()
            .await?;
        let format = app
            .config()
            .format(self.format.as_deref(), "imagesFormat", self.quiet);
        let digests = self.digests || format.contains(".Digest");
        let rows = images.as_array().into_iter().flatten().flat_map(|image| {
            names(image, digests)
                .into_iter()
                .map(|name| row(image, &name, !self.no_trunc))
                .collect::<Vec<_>>()
        });
        print_list(
            if self.digests { &WITH_DIGESTS } else { &LAYOUT },
            format,
            self.quiet,
            rows.collect(),
        )
    }
}

impl Images {
    async fn tree(&self, app: &App) -> Result<()> {
        for (given, flag) in [
            (self.quiet, "quiet"),
            (self.no_trunc, "no-trunc"),
            (self.digests, "digests"),
            (self.format.is_some(), "format"),
        ] {
            if given {
                bail!("--{flag} is not yet supported with --tree");
            }
        }
        let mut images: Vec<ImageSummary> = app
            .client()?
            .get("/images/json")
            .flag("all", self.all)
            .flag("manifests", true)
            .maybe("filters", Some(filters_json(&self.filter)))
            .fetch()
            .await?;
        images.retain(|image| self.all || !image.repo_tags.is_empty());
        let width = terminal::size().map_or(80, |(_, columns)| columns.into());
        put(&image_tree::render(&images, width))
    }
}

struct Name {
    repository: String,
    tag: String,
    digest: String,
}

const NONE: &str = "<none>";

fn strings<'v>(image: &'v Value, member: &str) -> impl Iterator<Item = &'v str> {
    image[member]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

/// One name for each row that an image takes: its tags, or what there is in their place.
fn names(image: &Value, digests: bool) -> Vec<Name> {
    let name = |repository: &str, tag: &str, digest: &str| Name {
        repository: repository.into(),
        tag: tag.into(),
        digest: digest.into(),
    };
    let parsed = |member| strings(image, member).filter_map(|text| Reference::parse(text).ok());
    let tags: Vec<(String, String)> = parsed("RepoTags")
        .filter_map(|reference| Some((reference.familiar_name(), reference.tag()?.to_owned())))
        .collect();
    let mut by_repository: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for reference in parsed("RepoDigests") {
        if let Some(digest) = reference.digest() {
            by_repository
                .entry(reference.familiar_name())
                .or_default()
                .push(digest.to_string());
        }
    }
    let mut rows = Vec::new();
    for (repository, tag) in &tags {
        match by_repository.get(repository) {
            Some(list) if digests => {
                rows.extend(list.iter().map(|digest| name(repository, tag, digest)))
            }
            _ => rows.push(name(repository, tag, NONE)),
        }
    }
    for (repository, list) in &by_repository {
        if tags.iter().any(|(tagged, _)| tagged == repository) {
            continue;
        }
        if digests {
            rows.extend(list.iter().map(|digest| name(repository, NONE, digest)));
        } else {
            rows.push(name(repository, NONE, ""));
        }
    }
    if rows.is_empty() {
        rows.push(name(NONE, NONE, NONE));
    }
    rows
}

fn row(image: &Value, name: &Name, truncate: bool) -> Fields {
    let id = image["Id"].as_str().unwrap_or_default();
    let created = image["Created"].as_i64().unwrap_or(0);
    let size = image["Size"].as_f64().unwrap_or(0.0);
    let shared = image["SharedSize"].as_f64().unwrap_or(-1.0);
    let or_unknown = |known: bool, bytes: f64| {
        if known {
            human_size_4(bytes)
        } else {
            "N/A".into()
        }
    };
    let containers = image["Containers"].as_i64().unwrap_or(-1);
    Fields::default()
        .set("ID", if truncate { short_id(id) } else { id })
        .set("Repository", &name.repository)
        .set("Tag", &name.tag)
        .set("Digest", &name.digest)
        .set(
            "CreatedSince",
            if created > 0 {
                ago(created)
            } else {
                "N/A".into()
            },
        )
        .set("CreatedAt", unix_local(created))
        .set("Size", human_size(size))
        .set("VirtualSize", human_size_4(size))
        .set(
            "Containers",
            if containers < 0 {
                "N/A".into()
            } else {
                containers.to_string()
            },
        )
        .set("SharedSize", or_unknown(shared >= 0.0, shared))
        .set("UniqueSize", or_unknown(shared >= 0.0, size - shared))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(image: Value, digests: bool) -> Vec<String> {
        names(&image, digests)
            .iter()
            .map(|name| format!("{} {} {}", name.repository, name.tag, name.digest))
            .collect()
    }

    #[test]
    fn an_image_takes_a_row_for_each_tag() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let image = json!({"RepoTags": ["a:1", "a:2", "reg:5000/b:x"], "RepoDigests": [format!("a@{digest}"), format!("c@{digest}")]});
        assert_eq!(
            shown(image.clone(), false),
            [
                "a 1 <none>",
                "a 2 <none>",
                "reg:5000/b x <none>",
                "c <none> "
            ]
        );
        assert_eq!(shown(image, true)[0], format!("a 1 {digest}"));
        assert_eq!(
            shown(json!({"RepoTags": null}), false),
            ["<none> <none> <none>"]
        );
        assert_eq!(
            shown(json!({"RepoTags": ["<none>:<none>"]}), false),
            ["<none> <none> <none>"]
        );
    }
}
