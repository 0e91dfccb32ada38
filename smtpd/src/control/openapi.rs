//! The interface's description of itself, for other people's tools (OpenAPI 3.1).
//!
//! Made from the table of endpoints and from the types of `mailroot-common::control`, whose fields
//! are only ever added: a reader takes unknown members as they come.

use mailroot_common::control::problem::MEDIA_TYPE;
use mailroot_common::control::{API_VERSION, JSON_LINES, Problem, path};
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::answer::{Answer, object};
use super::endpoint::{ENDPOINTS, Endpoint, Gives, Takes};

/// The conditions of a selector as a query names them.
const CONDITIONS: [(&str, &str); 13] = [
    ("ids", "Ids or beginnings of ids, separated by commas"),
    ("from", "Pattern of the sender, <> for none"),
    ("to", "Pattern of a recipient"),
    ("domain", "Pattern of a recipient's domain"),
    ("subject", "Pattern of the subject"),
    ("client", "Address or network of the client"),
    ("older_than", "Span such as 2h"),
    ("newer_than", "Span such as 2h"),
    ("state", "States, separated by commas"),
    ("reason", "Pattern of the last words"),
    ("code", "Pattern of the last enhanced code"),
    ("size", "Size with a comparison, such as >5MiB"),
    ("server", "The virtual server"),
];

/// The terms of a change as a query names them.
const TERMS: [(&str, &str, &str); 4] = [
    ("dry_run", "boolean", "Check everything and change nothing"),
    ("message", "string", "Why, for the history"),
    ("expect", "integer", "Refuse unless this revision is the newest"),
    ("trial", "integer", "Seconds after which it is taken back unless confirmed"),
];

/// Further words of a query: method, path, name, type, meaning.
const WORDS: [(&str, &str, &str, &str, &str); 20] = [
    ("POST", path::QUEUE_ADOPT, "name", "string", "What the file is called"),
    ("POST", path::QUEUE_ADOPT, "server", "string", "The virtual server"),
    ("POST", path::PICKUP_CHECK, "name", "string", "What the file is called"),
    ("POST", path::PICKUP_CHECK, "server", "string", "The virtual server"),
    ("GET", path::TRACE, "limit", "integer", "At most so many"),
    ("GET", path::TRACE_REFUSED, "limit", "integer", "At most so many"),
    ("GET", path::STATS, "by", "string", "server, destination, sender, hour or service"),
    ("GET", path::STATS, "since", "string", "How far back, such as 1d, which it is if absent"),
    ("GET", path::STATS, "server", "string", "The virtual server"),
    ("GET", path::DESTINATIONS, "server", "string", "The virtual server"),
    ("GET", path::DESTINATIONS, "limit", "integer", "At most so many"),
    ("GET", path::SESSIONS_DIALOGUE, "limit", "integer", "At most so many lines"),
    ("GET", path::QUEUE, "limit", "integer", "At most so many"),
    ("GET", path::BADMAIL, "limit", "integer", "At most so many"),
    ("GET", path::QUEUE_CONTENT, "headers", "boolean", "The header only"),
    ("GET", path::CONFIG_HISTORY, "limit", "integer", "At most so many"),
    ("GET", path::CONFIG_DIFF, "from", "integer", "A revision; the one in force if absent"),
    ("GET", path::CONFIG_DIFF, "to", "integer", "A revision; what lies on disk if absent"),
    ("DELETE", path::SERVER, "discard_queue", "boolean", "Also if mail waits in its queue"),
    ("DELETE", path::SERVER, "purge_store", "boolean", "Its mail root as well"),
];

/// The document.
pub(super) async fn document() -> Answer<Value> {
    let mut settings = SchemaSettings::draft2020_12();
    settings.definitions_path = "/components/schemas".into();
    settings.meta_schema = None;
    let mut generator = settings.into_generator();
    let mut paths = Map::new();
    for endpoint in ENDPOINTS {
        let item = paths.entry(endpoint.path).or_insert_with(|| json!({}));
        item[endpoint.method.as_str().to_lowercase()] = operation(endpoint, &mut generator);
    }
    // The description of problems is the one that answers of every path refer to.
    let problem = generator.subschema_for::<Problem>();
    debug_assert!(problem.get("$ref").is_some(), "a problem is described once");
    object(json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Mailroot control interface",
            "version": format!("{API_VERSION}"),
            "description": "HTTP/1.1 with JSON on the control socket. Times are RFC 3339 in UTC, \
                sizes are octets, spans are seconds. Fields are only added.",
        },
        "paths": paths,
        "components": {"schemas": generator.take_definitions(true)},
    }))
}

fn operation(endpoint: &Endpoint, generator: &mut SchemaGenerator) -> Value {
    let content = match endpoint.gives {
        Gives::Json(shape) => json!({"application/json": {"schema": shape(generator)}}),
        Gives::Lines(shape) => json!({JSON_LINES: {"itemSchema": shape(generator)}}),
        Gives::Octets => json!({"message/rfc822": {}}),
    };
    let mut operation = json!({
        "operationId": name(endpoint),
        "summary": endpoint.summary,
        "x-role": endpoint.role.word(),
        "parameters": parameters(endpoint),
        "responses": {
            "200": {"description": "Done", "content": content},
            "default": {"description": "What is wrong", "content": {
                MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}},
            }},
        },
    });
    match endpoint.takes {
        Takes::Nothing | Takes::Selector | Takes::Terms => {}
        Takes::Body(shape) | Takes::Change(shape) => {
            let schema = shape(generator);
            operation["requestBody"] =
                json!({"required": true, "content": {"application/json": {"schema": schema}}});
        }
        Takes::Octets => operation["requestBody"] = json!({"content": {"message/rfc822": {}}}),
    }
    operation
}

/// `get_servers_server` for `GET /v1/servers/{server}`.
fn name(endpoint: &Endpoint) -> String {
    let words = endpoint.path.split('/').skip(2).map(|part| part.trim_matches(['{', '}']));
    let words: Vec<&str> = words.collect();
    let path = words.join("_").replace('.', "_");
    format!("{}_{path}", endpoint.method.as_str().to_lowercase())
}

fn parameters(endpoint: &Endpoint) -> Vec<Value> {
    let text = json!({"type": "string"});
    let in_path = endpoint.path.split('/').filter_map(|part| {
        let name = part.strip_prefix('{')?.strip_suffix('}')?;
        let schema = if name == "revision" { json!({"type": "integer"}) } else { text.clone() };
        Some(json!({"name": name, "in": "path", "required": true, "schema": schema}))
    });
    let mut all: Vec<_> = in_path.collect();
    if let Takes::Selector = endpoint.takes {
        all.extend(CONDITIONS.iter().map(|(name, description)| {
            json!({"name": name, "in": "query", "description": description, "schema": text})
        }));
    }
    let mut word = |name: &str, kind: &str, description: &str| {
        let schema = match kind {
            "integer" => json!({"type": kind, "minimum": 0}),
            _ => json!({"type": kind}),
        };
        all.push(
            json!({"name": name, "in": "query", "description": description, "schema": schema}),
        );
    };
    for (method, path, name, kind, description) in WORDS {
        if endpoint.method.as_str() == method && endpoint.path == path {
            word(name, kind, description);
        }
    }
    if let Takes::Terms | Takes::Change(_) = endpoint.takes {
        for (name, kind, description) in TERMS {
            word(name, kind, description);
        }
        let tag = json!({"type": "string", "pattern": "^\"[0-9]{1,18}\"$"});
        all.push(
            json!({"name": "If-Match", "in": "header", "description": "As expect", "schema": tag}),
        );
    }
    all
}
