//! One engine, containers that are asked for in the API's own words, and what was seen of each property.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Debug, Display};
use std::fs;

use gantry_e2e::{Done, Engine};
use serde_json::{Value, json};

/// The image of most checks.
pub(crate) const IMAGE: &str = "busybox:latest";
/// An image whose configuration says something in every field.
pub(crate) const RICH: &str = "rich:latest";

/// What a check has looked at, and what was not as it should be.
pub(crate) struct Seen {
    properties: RefCell<BTreeSet<String>>,
    faults: RefCell<Vec<String>>,
}

impl Seen {
    pub(crate) fn new() -> Self {
        Self {
            properties: RefCell::default(),
            faults: RefCell::default(),
        }
    }

    /// The property is as wanted when `got` is `want`.
    pub(crate) fn eq<G, W>(&self, property: &str, got: G, want: W)
    where
        G: PartialEq<W> + Debug,
        W: Debug,
    {
        let good = got == want;
        self.holds(property, good, format!("got {got:?}, want {want:?}"));
    }

    /// The property is as wanted when `good`.
    pub(crate) fn holds(&self, property: &str, good: bool, what: impl Display) {
        self.properties.borrow_mut().insert(property.to_owned());
        if !good {
            self.faults.borrow_mut().push(format!("{property}: {what}"));
        }
    }

    /// The property is refused with this status and these words.
    pub(crate) fn refused(&self, property: &str, reply: (u16, String), status: u16, words: &str) {
        let good = reply.0 == status && reply.1.contains(words);
        let what = format!("got {} {:?}, want {status} {words:?}", reply.0, reply.1);
        self.holds(property, good, what);
    }

    /// The properties looked at, and the faults.
    pub(crate) fn into_parts(self) -> (BTreeSet<String>, Vec<String>) {
        (self.properties.into_inner(), self.faults.into_inner())
    }
}

/// A request for a container with this host configuration.
pub(crate) fn host(config: Value) -> Value {
    json!({ "HostConfig": config })
}

/// The same with these mounts.
pub(crate) fn mounts(list: Value) -> Value {
    host(json!({ "Mounts": list }))
}

/// What checks share.
pub(crate) struct Lab<'a> {
    pub(crate) engine: &'a Engine,
}

/// `key=value` lines of a script's output.
pub(crate) struct Words(BTreeMap<String, String>);

impl Words {
    pub(crate) fn read(text: &str) -> Self {
        let pair = |line: &str| {
            let (key, value) = line.split_once('=')?;
            Some((key.to_owned(), value.trim_end().to_owned()))
        };
        Self(text.lines().filter_map(pair).collect())
    }

    /// The value of a key; empty when the script did not say it.
    pub(crate) fn get(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }
}

impl Lab<'_> {
    /// A request, and its answer as JSON (or as a string where it is none).
    pub(crate) fn api(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let text = body.map(Value::to_string);
        let (status, answer) = self.engine.api(method, path, text.as_deref());
        let parsed = serde_json::from_str(&answer).unwrap_or(Value::String(answer));
        (status, parsed)
    }

    /// Asks for a container; fields that say nothing have the checks' defaults.
    pub(crate) fn ask(&self, body: &Value) -> (u16, Value) {
        let mut body = body.clone();
        fill(&mut body, "Image", IMAGE.into());
        fill(&mut body, "HostConfig", json!({}));
        let networks = body.get("NetworkingConfig").is_some();
        if !networks {
            fill(&mut body["HostConfig"], "NetworkMode", "none".into());
        }
        self.api("POST", "/v1.51/containers/create", Some(&body))
    }

    /// Status and message of a request that is refused, at its creation or at its start.
    pub(crate) fn refusal(&self, body: &Value) -> (u16, String) {
        let (status, answer) = self.ask(body);
        if status != 201 {
            return (status, message(&answer));
        }
        let container = Container::new(self, &answer);
        let path = format!("/v1.51/containers/{}/start", container.id);
        let (status, answer) = self.api("POST", &path, None);
        (status, message(&answer))
    }

    /// Makes a container.
    #[track_caller]
    pub(crate) fn create(&self, body: &Value) -> Container<'_> {
        let (status, answer) = self.ask(body);
        assert_eq!(status, 201, "{body}: {answer}");
        Container::new(self, &answer)
    }

    /// Makes a container that runs a script, and runs it to its end.
    #[track_caller]
    pub(crate) fn run(&self, body: &Value, script: &str) -> Words {
        let mut body = body.clone();
        fill(&mut body, "Cmd", json!(["sh", "-c", script]));
        let container = self.create(&body);
        let done = container.run();
        assert_eq!(done.code, 0, "{body}: {done:?}");
        Words::read(&done.out)
    }

    /// A running container that does nothing until it is removed.
    #[track_caller]
    pub(crate) fn hold(&self, body: &Value) -> Container<'_> {
        let mut body = body.clone();
        fill(&mut body, "Cmd", json!(["sleep", "1000"]));
        let container = self.create(&body);
        container.start();
        container
    }
}

/// Puts `value` where the object has nothing.
pub(crate) fn fill(object: &mut Value, key: &str, value: Value) {
    if object.get(key).is_none() {
        object[key] = value;
    }
}

/// The words of an error.
pub(crate) fn message(answer: &Value) -> String {
    let words = answer.get("message").and_then(Value::as_str);
    words.map_or_else(|| answer.to_string(), str::to_owned)
}

/// A container that is removed, with its anonymous volumes, when the check is through with it.
pub(crate) struct Container<'a> {
    lab: &'a Lab<'a>,
    pub(crate) id: String,
    /// What the creation warned of.
    pub(crate) warnings: Vec<String>,
}

impl<'a> Container<'a> {
    fn new(lab: &'a Lab<'a>, answer: &Value) -> Self {
        let warnings = answer["Warnings"].as_array().into_iter().flatten();
        Self {
            lab,
            id: answer["Id"].as_str().expect("an identifier").to_owned(),
            warnings: warnings
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
        }
    }

    /// A request about this container.
    pub(crate) fn api(&self, method: &str, what: &str) -> (u16, Value) {
        let path = format!("/v1.51/containers/{}/{what}", self.id);
        self.lab.api(method, &path, None)
    }

    #[track_caller]
    pub(crate) fn start(&self) {
        let (status, answer) = self.api("POST", "start");
        assert_eq!(status, 204, "{answer}");
    }

    /// Runs to its end, attached.
    pub(crate) fn run(&self) -> Done {
        self.lab.engine.docker(&["start", "-a", &self.id])
    }

    #[track_caller]
    pub(crate) fn inspect(&self) -> Value {
        let (status, answer) = self.api("GET", "json");
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// What a script says inside.
    #[track_caller]
    pub(crate) fn exec(&self, script: &str) -> Words {
        let done = self
            .lab
            .engine
            .docker(&["exec", &self.id, "sh", "-c", script]);
        Words::read(&done.ok())
    }

    /// The first process, in the host's numbers.
    pub(crate) fn pid(&self) -> i64 {
        self.inspect()["State"]["Pid"].as_i64().expect("a number")
    }

    /// The path of the container's group in a hierarchy of version 1.
    pub(crate) fn cgroup(&self, controller: &str) -> String {
        let groups = fs::read_to_string(format!("/proc/{}/cgroup", self.pid())).expect("it runs");
        let path = groups.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let controllers = parts.next()?;
            let found = controllers.split(',').any(|c| c == controller);
            found.then(|| parts.next().unwrap_or_default().to_owned())
        });
        path.unwrap_or_else(|| panic!("no {controller} hierarchy: {groups}"))
    }

    /// A file of that group.
    pub(crate) fn limit(&self, controller: &str, file: &str) -> String {
        let path = format!(
            "/sys/fs/cgroup/{controller}{}/{file}",
            self.cgroup(controller)
        );
        let text = fs::read_to_string(&path).unwrap_or_else(|e| format!("{path}: {e}"));
        text.trim().to_owned()
    }

    /// A namespace of the first process.
    pub(crate) fn namespace(&self, kind: &str) -> String {
        namespace(&self.pid().to_string(), kind)
    }
}

/// A namespace of a process.
pub(crate) fn namespace(process: &str, kind: &str) -> String {
    let link = fs::read_link(format!("/proc/{process}/ns/{kind}")).expect("it runs");
    link.display().to_string()
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        let path = format!("/v1.51/containers/{}?force=1&v=1", self.id);
        self.lab.api("DELETE", &path, None);
    }
}
