//! The interface's description of itself, for other people's tools (OpenAPI 3.1).
//!
//! Made from the table of endpoints. Bodies are named after the types of
//! `mailroot-common::control`, whose fields are only ever added; schemas say no more than that, so
//! that a reader takes unknown members as they come.

use mailroot_common::control::problem::MEDIA_TYPE;
use mailroot_common::control::{API_VERSION, JSON_LINES};
use serde_json::{Map, Value, json};

use super::answer::{Answer, object};
use super::endpoint::{ENDPOINTS, Endpoint, Gives, Takes};

/// The conditions of a selector as a query names them.
const CONDITIONS: [(&str, &str); 14] = [
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
    ("limit", "At most so many"),
];

/// The document.
pub(super) async fn document() -> Answer<Value> {
    let mut paths = Map::new();
    for endpoint in ENDPOINTS {
        let item = paths.entry(endpoint.path).or_insert_with(|| json!({}));
        item[endpoint.method.as_str().to_lowercase()] = operation(endpoint);
    }
    object(json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Mailroot control interface",
            "version": format!("{API_VERSION}"),
            "description": "HTTP/1.1 with JSON on the control socket. Times are RFC 3339 in UTC, \
                sizes are octets, spans are seconds. Fields are only added.",
        },
        "paths": paths,
        "components": {"schemas": {"Problem": {
            "type": "object",
            "description": "RFC 9457, with the exit code of smtpctl",
            "required": ["type", "code", "title", "status", "exit", "detail"],
        }}},
    }))
}

fn operation(endpoint: &Endpoint) -> Value {
    let media = match endpoint.gives {
        Gives::Json => "application/json",
        Gives::Lines => JSON_LINES,
        Gives::Octets => "message/rfc822",
    };
    let mut operation = json!({
        "summary": endpoint.summary,
        "x-role": endpoint.role.word(),
        "parameters": parameters(endpoint),
        "responses": {
            "200": {"description": "Done", "content": {media: {}}},
            "default": {"description": "What is wrong", "content": {
                MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}},
            }},
        },
    });
    match endpoint.takes {
        Takes::Nothing | Takes::Selector => {}
        Takes::Body(name) => {
            let schema = json!({"type": "object", "title": name});
            operation["requestBody"] = json!({"content": {"application/json": {"schema": schema}}});
        }
        Takes::Octets => operation["requestBody"] = json!({"content": {"message/rfc822": {}}}),
    }
    operation
}

fn parameters(endpoint: &Endpoint) -> Vec<Value> {
    let text = json!({"type": "string"});
    let in_path = endpoint.path.split('/').filter_map(|part| {
        let name = part.strip_prefix('{')?.strip_suffix('}')?;
        Some(json!({"name": name, "in": "path", "required": true, "schema": text}))
    });
    let mut all: Vec<_> = in_path.collect();
    if endpoint.takes == Takes::Selector {
        all.extend(CONDITIONS.iter().map(|(name, description)| {
            json!({"name": name, "in": "query", "description": description, "schema": text})
        }));
    }
    all
}
