//! Every path of the Engine API is asked for: it answers as `tests/checklists/endpoints.tsv` says, and what is not there is
//! said to be not there.

use std::collections::BTreeSet;
use std::path::Path;

use gantry_e2e::Engine;

/// One endpoint.
struct Row {
    method: String,
    path: String,
    /// `there`, `refused` (always, as dockerd does outside a swarm), `later`, `no`.
    state: String,
    /// Query of the request that tries it.
    probe: String,
    /// What the answer is, for things that there are not.
    status: u16,
    words: String,
    note: String,
}

fn table(name: &str) -> String {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../checklists");
    std::fs::read_to_string(directory.join(name)).unwrap()
}

fn rows() -> Vec<Row> {
    let text = table("endpoints.tsv");
    let rows = text.lines().skip(1).map(|line| {
        let cells: Vec<String> = line.split('\t').map(str::to_owned).collect();
        let [method, path, _tier, state, probe, status, words, note] =
            <[String; 8]>::try_from(cells).unwrap_or_else(|cells| panic!("eight cells: {cells:?}"));
        Row {
            status: status
                .parse()
                .unwrap_or_else(|_| panic!("{method} {path}: status {status:?}")),
            method,
            path,
            state,
            probe,
            words,
            note,
        }
    });
    rows.collect()
}

/// Asks for a login at a registry that nobody serves.
const LOGIN: &str = r#"{"serveraddress": "127.0.0.1:1"}"#;

/// Status and body of one request; streams that do not end are cut off.
fn ask(engine: &Engine, row: &Row) -> (u16, String) {
    let path = ["{id}", "{name}", "{checkpoint}"]
        .iter()
        .fold(row.path.clone(), |path, word| path.replace(word, "absent"))
        // At a registry that nobody serves.
        .replace("/distribution/", "/distribution/127.0.0.1:1/");
    let url = format!("http://localhost/v1.51{path}{}", row.probe);
    let socket = engine.socket().display().to_string();
    let mut args = vec![
        "-s",
        "-m",
        "5",
        "--unix-socket",
        &socket,
        "-w",
        "\n%{http_code}",
    ];
    match row.method.as_str() {
        "HEAD" => args.push("-I"),
        "POST" => args.extend([
            "-X",
            "POST",
            "-H",
            "Content-Type: application/json",
            "-d",
            if row.path == "/auth" { LOGIN } else { "{}" },
        ]),
        "PUT" => args.extend(["-X", "PUT", "-d", ""]),
        method => args.extend(["-X", method]),
    }
    args.push(&url);
    let out = engine.client("curl", &args).out;
    let (body, status) = out.rsplit_once('\n').unwrap_or(("", &out));
    (status.parse().unwrap_or(0), body.to_owned())
}

#[test]
fn the_table_is_whole() {
    let listed: BTreeSet<String> = rows()
        .iter()
        .map(|r| format!("{}\t{}", r.method, r.path))
        .collect();
    let api = table("api-v1.51-paths.tsv");
    let missing: Vec<_> = api
        .lines()
        .skip(1)
        .filter(|line| !listed.contains(*line))
        .collect();
    assert!(
        missing.is_empty(),
        "in the API, not in the table: {missing:?}"
    );
}

#[test]
fn every_endpoint_answers() {
    let engine = Engine::start();
    let mut faults = Vec::new();
    let rows = rows();
    let known: BTreeSet<_> = rows.iter().map(|r| (&r.method, &r.path)).collect();
    assert_eq!(
        known.len(),
        rows.len(),
        "an endpoint stands in the table twice"
    );
    for row in &rows {
        let name = format!("{} {}", row.method, row.path);
        let (status, body) = ask(&engine, row);
        let missing = body.contains("page not found");
        let there = match row.state.as_str() {
            "there" | "refused" => true,
            "later" | "no" => false,
            other => panic!("{name}: state {other:?}"),
        };
        if there == missing {
            faults.push(format!(
                "{name}: {} by the table, but: {status} {body}",
                row.state
            ));
        } else if status != row.status || !body.contains(&row.words) {
            faults.push(format!(
                "{name}: want {} {:?}, got {status} {body}",
                row.status, row.words
            ));
        }
        if !there && row.note.is_empty() {
            faults.push(format!(
                "{name}: the table does not say why it is not there"
            ));
        }
    }
    eprintln!("{}", faults.join("\n"));
    engine.finish();
    assert!(faults.is_empty());
}
