use anyhow::Result;
use clap::Args;
use gantry_wire::Reference;
use serde_json::Value;

use crate::app::App;
use crate::auth;
use crate::format::{Fields, Layout, ellipsis, print_list};
use crate::opts::values::{Filter, filters_json, parse_filter};

/// Flags of `search`.
#[derive(Args, Debug)]
pub(crate) struct Search {
    /// Filter output based on conditions provided
    #[arg(long, short, value_name = "filter", value_parser = parse_filter)]
    pub(crate) filter: Vec<Filter>,
    /// Pretty-print search using a Go template
    #[arg(long, value_name = "string")]
    pub(crate) format: Option<String>,
    /// Max number of search results
    #[arg(long, value_name = "int")]
    pub(crate) limit: Option<i64>,
    /// Don't truncate output
    #[arg(long)]
    pub(crate) no_trunc: bool,
    term: String,
}

const LAYOUT: Layout = Layout {
    columns: &[
        ("Name", "NAME"),
        ("Description", "DESCRIPTION"),
        ("StarCount", "STARS"),
        ("IsOfficial", "OFFICIAL"),
    ],
    more_headings: &[("IsAutomated", "AUTOMATED")],
    quiet: "{{.Name}}",
    raw: "",
};

impl Search {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        // The registry to search is the term's first part, if it looks like one; the rest need not be a name.
        let first = self.term.split_once('/').map_or("", |(first, _)| first);
        let registry = Reference::parse(&format!("{first}/x")).map_or_else(
            |_| auth::HUB_KEY.into(),
            |name| auth::key_of(&name).to_owned(),
        );
        let credentials = auth::lookup(app.config(), &registry);
        let results = app
            .client()?
            .get("/images/search")
            .query("term", &self.term)
            .maybe(
                "limit",
                self.limit
                    .filter(|limit| *limit > 0)
                    .map(|limit| limit.to_string()),
            )
            .maybe("filters", Some(filters_json(&self.filter)))
            .header("X-Registry-Auth", auth::header(&credentials))
            .value()
            .await?;
        let rows = results
            .as_array()
            .into_iter()
            .flatten()
            .map(|result| self.row(result))
            .collect();
        print_list(
            &LAYOUT,
            self.format.as_deref().unwrap_or_default(),
            false,
            rows,
        )
    }

    fn row(&self, result: &Value) -> Fields {
        let description = result["description"]
            .as_str()
            .unwrap_or_default()
            .replace(['\n', '\r'], " ");
        let flag = |name: &str| if result[name] == true { "[OK]" } else { "" };
        Fields::default()
            .set("Name", result["name"].as_str().unwrap_or_default())
            .set(
                "Description",
                if self.no_trunc {
                    description
                } else {
                    ellipsis(&description, 45)
                },
            )
            .set(
                "StarCount",
                result["star_count"].as_i64().unwrap_or(0).to_string(),
            )
            .set("IsOfficial", flag("is_official"))
            .set("IsAutomated", flag("is_automated"))
    }
}
