//! Lists, inspection and sizes, in the forms of several API versions.

use gantry_e2e::Engine;
use serde_json::{Value, json};

use crate::layout::{Compression, Layout, busybox_layer, file_layer};

fn get(engine: &Engine, path: &str) -> Value {
    let (status, body) = engine.api("GET", path, None);
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap()
}

/// An engine with `one:1`, and `two:1` of one layer more.
fn engine() -> Engine {
    let engine = Engine::with(Default::default());
    let mut layout = Layout::new(&engine.dir().join("layout"));
    let base = busybox_layer(Compression::Gzip);
    let more = file_layer("more", &"x".repeat(5000), Compression::None);
    let one = layout.image("linux/amd64", std::slice::from_ref(&base));
    let two = layout.image("linux/amd64", &[base, more]);
    layout.name(&one, "one:1");
    layout.name(&two, "two:1");
    engine.docker(&["load", "-q", "-i", &layout.archive()]).ok();
    engine
}

#[test]
fn history_tells_every_step() {
    let engine = engine();
    let history = engine.docker(&[
        "history",
        "--no-trunc",
        "--format",
        "{{.ID}}|{{.CreatedBy}}|{{.Size}}|{{.Comment}}",
        "two:1",
    ]);
    let id = engine.docker(&["images", "-q", "--no-trunc", "two:1"]).ok();
    let lines: Vec<String> = history.ok().lines().map(Into::into).collect();
    assert_eq!(lines[0], format!("{id}|CMD [\"sh\"]|0B|"));
    assert_eq!(lines[1], "<missing>|step 1|5kB|by hand");
    assert!(
        lines[2].starts_with("<missing>|step 0|") && !lines[2].contains("|0B|"),
        "{lines:?}"
    );
    let history = get(&engine, "/v1.51/images/two:1/history");
    assert_eq!(history[0]["Tags"], json!(["two:1"]));
    assert_eq!(history[1]["Tags"], Value::Null);
    engine.finish();
}

#[test]
fn an_inspected_image_is_as_the_version_knows_it() {
    let engine = engine();
    let at = |version: &str| get(&engine, &format!("/v{version}/images/two:1/json"));
    let newest = at("1.51");
    assert_eq!(newest["Config"]["Labels"]["made"], "by-hand");
    assert_eq!(newest["Config"]["Volumes"], Value::Null);
    assert!(newest["Config"].get("Hostname").is_none());
    assert_eq!(newest["RootFS"]["Layers"].as_array().unwrap().len(), 2);
    assert!(newest["Descriptor"]["digest"].is_string() && newest.get("Manifests").is_none());
    assert!(newest.get("VirtualSize").is_none() && newest.get("Container").is_none());
    assert!(at("1.47").get("Descriptor").is_none());
    assert_eq!(at("1.49")["Config"]["Hostname"], "");
    assert_eq!(at("1.44")["ContainerConfig"]["Hostname"], "");
    let old = at("1.43");
    assert_eq!(old["VirtualSize"], old["Size"]);
    engine.docker(&["rmi", "two:1"]).ok();
    engine.docker(&["tag", "one:1", "gone:1"]).ok();
    engine.docker(&["rmi", "one:1"]).ok();
    let id = engine
        .docker(&["images", "-q", "--no-trunc", "gone:1"])
        .ok();
    engine
        .docker(&["run", "-d", "--name", "made", "gone:1", "sleep", "1000"])
        .ok();
    engine.docker(&["rmi", "-f", "gone:1"]).ok();
    // Without a name: empty lists, and once names that said so.
    let list = get(&engine, "/v1.43/images/json?all=1");
    assert_eq!(
        (&list[0]["Id"], &list[0]["RepoTags"]),
        (&json!(id), &json!([]))
    );
    let list = get(&engine, "/v1.42/images/json?all=1");
    assert_eq!(list[0]["RepoTags"], json!(["<none>:<none>"]));
    assert_eq!(list[0]["RepoDigests"], json!(["<none>@<none>"]));
    engine.finish();
}

#[test]
fn filters_choose_and_say_what_they_do_not_know() {
    let engine = engine();
    engine.import_busybox("late:1");
    let names = |filters: &[&str]| {
        let mut arguments = vec!["images", "--format", "{{.Repository}}"];
        for filter in filters {
            arguments.extend(["-f", filter]);
        }
        let mut names: Vec<String> = engine
            .docker(&arguments)
            .ok()
            .lines()
            .map(Into::into)
            .collect();
        names.sort();
        names.join(" ")
    };
    assert_eq!(names(&[]), "late one two");
    assert_eq!(names(&["reference=t*"]), "two");
    assert_eq!(names(&["reference=*:1", "label=made=by-hand"]), "one two");
    assert_eq!(names(&["label=made", "label=other"]), "");
    assert_eq!(names(&["since=one:1"]), "late");
    assert_eq!(names(&["before=late:1"]), "one two");
    assert_eq!(names(&["until=2024-06-01"]), "one two");
    assert_eq!(names(&["until=1h", "reference=one"]), "one");
    assert_eq!(names(&["dangling=false"]), "late one two");
    assert_eq!(names(&["dangling=true"]), "");
    engine
        .docker(&["images", "-f", "nonsense=1"])
        .fails(1, "invalid filter 'nonsense'");
    engine
        .docker(&["images", "-f", "dangling=x"])
        .fails(1, "invalid filter 'dangling=[x]'");
    engine
        .docker(&["images", "-f", "before=absent"])
        .fails(1, "No such image: absent:latest");
    engine.finish();
}

#[test]
fn sizes_account_for_what_is_shared() {
    let engine = engine();
    engine.docker(&["create", "--name", "made", "one:1"]).ok();
    let usage = get(&engine, "/v1.51/system/df");
    let images = usage["Images"].as_array().unwrap();
    let image = |name: &str| {
        images
            .iter()
            .find(|image| image["RepoTags"][0] == name)
            .unwrap()
    };
    let (one, two) = (image("one:1"), image("two:1"));
    let size = |image: &Value, member: &str| image[member].as_i64().unwrap();
    assert_eq!(size(one, "Size"), size(one, "SharedSize"));
    assert_eq!(size(two, "Size") - size(two, "SharedSize"), 5000);
    assert_eq!((size(one, "Containers"), size(two, "Containers")), (1, 0));
    // A layer that two images have is there once.
    assert_eq!(usage["LayersSize"], two["Size"]);
    let only = get(&engine, "/v1.51/system/df?type=container");
    assert_eq!(
        (
            &only["Images"],
            only["Containers"].as_array().unwrap().len()
        ),
        (&Value::Null, 1)
    );
    let (status, body) = engine.api("GET", "/v1.51/system/df?type=x", None);
    assert_eq!(
        (status, body.contains("unknown object type: x")),
        (400, true)
    );

    let rows = |text: &str| -> Vec<String> {
        let fields = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        text.lines().map(fields).collect()
    };
    let shown = engine
        .docker(&[
            "system",
            "df",
            "--format",
            "{{.Type}} {{.TotalCount}} {{.Active}}",
        ])
        .ok();
    assert_eq!(shown.lines().next(), Some("Images 2 1"));
    let verbose = engine.docker(&["system", "df", "-v"]).ok();
    let row = rows(&verbose)
        .into_iter()
        .find(|row| row.starts_with("two 1 "))
        .unwrap();
    assert!(row.ends_with(" 5kB 0"), "{row}");
    let ours = engine.gantry(&["system", "df", "-v"]).ok();
    assert!(rows(&ours).contains(&row), "{row}: {ours}");
    engine.finish();
}
