//! JSON Schema of the two kinds of files, for editors that complete and check while one types.
//!
//! Made from the same tables as the manual, so that it cannot know other keys. It helps a person;
//! what is accepted is decided by the reader alone.

use serde_json::{Map, Value, json};

use super::root::ServiceConfig;
use super::section::KeyDoc;
use super::server::ServerConfig;

const DURATION: &str = "^([0-9]+(ms|s|m|h|d|w))+$";
const SIZE: &str = "^[0-9]+(B|kB|MB|GB|TB|KiB|MiB|GiB|TiB)$";

/// The schema of `mailroot.yaml`.
#[must_use]
pub fn service() -> Value {
    document("Mailroot: mailroot.yaml", &ServiceConfig::keys())
}

/// The schema of `servers.d/NAME.yaml`.
#[must_use]
pub fn server() -> Value {
    document("Mailroot: a virtual server", &ServerConfig::keys())
}

fn document(title: &str, keys: &[KeyDoc]) -> Value {
    let mut root = section();
    for key in keys {
        let parts: Vec<&str> = key.key.split('.').collect();
        put(&mut root, &parts, describe(key), &key.section);
    }
    root["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    root["title"] = json!(title);
    root["required"] = json!(["version"]);
    root
}

fn section() -> Value {
    json!({"type": "object", "additionalProperties": false, "properties": {}})
}

/// Puts a key in its place; sections on the way are made. A part that ends in `[]` is a list.
fn put(object: &mut Value, parts: &[&str], schema: Value, about: &str) {
    let Some((first, rest)) = parts.split_first() else { return };
    let name = first.trim_end_matches("[]");
    let Some(properties) = object["properties"].as_object_mut() else { return };
    if rest.is_empty() {
        properties.insert(name.to_owned(), schema);
        return;
    }
    let is_list = name.len() < first.len();
    let inner = properties.entry(name).or_insert_with(|| {
        if is_list { json!({"type": "array", "items": section()}) } else { section() }
    });
    let inner = if is_list { &mut inner["items"] } else { inner };
    if rest.len() == 1 && !about.is_empty() {
        inner["description"] = json!(about);
    }
    put(inner, rest, schema, about);
}

fn describe(key: &KeyDoc) -> Value {
    let mut schema = of_type(&key.type_name);
    if let (Some(object), Some((least, most))) = (schema.as_object_mut(), &key.bounds)
        && object.get("type") == Some(&json!("integer"))
        && let (Ok(least), Ok(most)) = (least.parse::<u64>(), most.parse::<u64>())
    {
        object.insert("minimum".to_owned(), json!(least));
        object.insert("maximum".to_owned(), json!(most));
    }
    let mut description = format!("{} Default: {}.", key.doc, key.modern);
    if key.iis6 != key.modern {
        description.push_str(&format!(" IIS 6: {}.", key.iis6));
    }
    schema["description"] = json!(description);
    schema
}

/// The schema of a type as the manual names it.
fn of_type(name: &str) -> Value {
    if let Some((words, item)) = name.split_once("list: ") {
        let item = of_type(item);
        let word = words.trim_end_matches(", or ");
        let mut any = vec![json!({"type": "array", "items": item}), item];
        if !word.is_empty() {
            any.push(json!({"const": word}));
        }
        return json!({"anyOf": any});
    }
    if name.contains(" | ") {
        let words: Vec<&str> = name.split(" | ").collect();
        return json!({"enum": words});
    }
    for word in ["unlimited", "never", "auto"] {
        if let Some(kind) = name.strip_suffix(word).and_then(|rest| rest.strip_suffix(" or ")) {
            return json!({"anyOf": [of_type(kind), {"const": word}]});
        }
    }
    let mut schema = Map::new();
    let mut set = |key: &str, value: Value| {
        schema.insert(key.to_owned(), value);
    };
    match name {
        "true or false" => {
            return json!({"anyOf": [{"type": "boolean"}, {"enum": ["yes", "no", "on", "off"]}]});
        }
        "number" => set("type", json!("integer")),
        "duration" => {
            set("type", json!("string"));
            set("pattern", json!(DURATION));
        }
        "size" => {
            set("type", json!("string"));
            set("pattern", json!(SIZE));
        }
        name if name.contains('{') => return json!({"type": ["string", "object"]}),
        _ => set("type", json!("string")),
    }
    Value::Object(schema)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The schema at a whole key.
    fn at<'v>(document: &'v Value, key: &str) -> &'v Value {
        key.split('.').fold(document, |value, part| {
            let inner = &value["properties"][part.trim_end_matches("[]")];
            if part.ends_with("[]") { &inner["items"] } else { inner }
        })
    }

    #[test]
    fn every_key_of_the_manual_has_its_place() {
        for (document, keys) in
            [(service(), ServiceConfig::keys()), (server(), ServerConfig::keys())]
        {
            for key in keys {
                let schema = at(&document, &key.key);
                let said = schema["description"].as_str().unwrap_or_default();
                assert!(said.starts_with(&key.doc), "{}: {schema}", key.key);
            }
        }
    }

    #[test]
    fn types_are_those_of_the_manual() {
        let document = server();
        assert_eq!(at(&document, "messages.max_size")["anyOf"][0]["pattern"], SIZE);
        assert_eq!(at(&document, "messages.max_size")["anyOf"][1]["const"], "unlimited");
        assert_eq!(at(&document, "delivery.max_hops")["maximum"], 1000);
        assert_eq!(at(&document, "access.relay.policy")["enum"], json!(["only", "all-except"]));
        let retry = at(&document, "delivery.outbound.retry");
        assert_eq!(retry["anyOf"][0]["items"]["pattern"], DURATION);
        assert_eq!(at(&document, "domains[].route")["anyOf"][2]["const"], "mx");
        assert_eq!(document["properties"]["general"]["additionalProperties"], false);
    }
}
