//! Docker Hub's index of repositories, and other registries' that speak the same (`/v1/search`).

use gantry_plugin_sdk::registry::{Search, SearchReply, SearchResult};
use gantry_plugin_sdk::{DriverError, DriverResult};
use http::Method;
use serde::Deserialize;

use crate::Hub;
use crate::http_call::{Wanted, parse};

/// An answer of more bytes is refused.
const MAX_ANSWER: usize = 4 << 20;

#[derive(Deserialize)]
struct Reply {
    #[serde(default)]
    results: Option<Vec<SearchResult>>,
}

impl Hub {
    pub(crate) async fn find(&self, request: Search) -> DriverResult<SearchReply> {
        let base = request.endpoint.url.trim_end_matches('/');
        let mut url = parse(&format!("{base}/v1/search"))?;
        url.query_pairs_mut()
            .append_pair("q", &request.term)
            .append_pair("n", &request.limit.to_string());
        let mut wanted = Wanted::pull(Method::GET, "");
        wanted.scope = String::new();
        let answer = self
            .authorized(&request.endpoint, &url, wanted)
            .await?
            .succeeded()
            .await?;
        let reply: Reply = serde_json::from_slice(&answer.body(MAX_ANSWER).await?)
            .map_err(|e| DriverError::internal(format!("invalid answer to a search: {e}")))?;
        Ok(SearchReply {
            results: reply.results.unwrap_or_default(),
        })
    }
}
