//! The documents as one page without scripts, for people. Pure: JSON in, HTML out.

use std::fmt::Write as _;

use serde_json::{Map, Value};

const HEAD: &str = include_str!("head.html");

/// Of schemas within schemas.
const MAX_DEPTH: usize = 8;

pub(super) fn page(openapi: &Value, asyncapi: &Value) -> String {
    let mut html = HEAD.to_owned();
    put(&mut html, "h2", "Over HTTP");
    put(&mut html, "p", text(&openapi["info"]["description"]));
    for (path, item) in members(&openapi["paths"]) {
        for (method, operation) in members(item).filter(|(method, _)| *method != "parameters") {
            let shared = list(&item["parameters"]).chain(list(&operation["parameters"]));
            write_operation(&mut html, openapi, path, method, operation, shared);
        }
    }
    put(&mut html, "h2", "On the socket");
    put(&mut html, "p", text(&asyncapi["info"]["description"]));
    for (_, operation) in members(&asyncapi["operations"]) {
        put(&mut html, "h3", text(&operation["summary"]));
        for message in list(&operation["messages"]) {
            let message = resolved(asyncapi, message);
            let kind = text(&message["payload"]["properties"]["type"]["const"]);
            open_card(
                &mut html,
                "message",
                &format!("message-{kind}"),
                kind,
                text(&message["summary"]),
            );
            write_schema(&mut html, asyncapi, &message["payload"], 0);
            html.push_str("</details>\n");
        }
    }
    put(&mut html, "h2", "Shapes");
    for (document, name, schema) in shapes(openapi, asyncapi) {
        open_card(&mut html, "schema", name, name, text(&schema["description"]));
        write_schema(&mut html, document, schema, 0);
        html.push_str("</details>\n");
    }
    html.push_str("</main>\n</body>\n</html>\n");
    html
}

/// Those of both documents; what has one name there is one thing.
fn shapes<'a>(
    openapi: &'a Value,
    asyncapi: &'a Value,
) -> impl Iterator<Item = (&'a Value, &'a str, &'a Value)> {
    let of = |document: &'a Value| {
        let schemas = members(&document["components"]["schemas"]);
        schemas.map(move |(name, schema)| (document, name, schema))
    };
    let known = &openapi["components"]["schemas"];
    of(openapi).chain(of(asyncapi).filter(|(_, name, _)| known.get(name).is_none()))
}

fn write_operation<'a>(
    html: &mut String,
    document: &'a Value,
    path: &str,
    method: &str,
    operation: &'a Value,
    parameters: impl Iterator<Item = &'a Value>,
) {
    let title = format!("{} {path}", method.to_uppercase());
    let id = text(&operation["operationId"]);
    open_card(html, "operation", id, &title, text(&operation["summary"]));
    if operation["description"].is_string() {
        put(html, "p", text(&operation["description"]));
    }
    let parameters: Vec<&Value> = parameters.map(|one| resolved(document, one)).collect();
    let body = &operation["requestBody"];
    if !parameters.is_empty() || body.is_object() {
        html.push_str("<h4>Takes</h4>\n<dl>\n");
    }
    for one in &parameters {
        let place = format!("{} ({})", text(&one["name"]), text(&one["in"]));
        put(html, "dt", &place);
        put(html, "dd", text(&one["description"]));
    }
    for (media_type, content) in members(&body["content"]) {
        put(html, "dt", &format!("body, {media_type}"));
        html.push_str("<dd>");
        write_shape(html, document, &content["schema"], 1);
        html.push_str("</dd>\n");
    }
    if !parameters.is_empty() || body.is_object() {
        html.push_str("</dl>\n");
    }
    html.push_str("<h4>Answers</h4>\n<dl>\n");
    for (status, response) in members(&operation["responses"]) {
        let response = resolved(document, response);
        put(html, "dt", status);
        let _infallible = write!(html, "<dd>{} ", escaped(text(&response["description"])));
        for (media_type, content) in members(&response["content"]) {
            let _infallible = write!(html, "<span class=\"soft\">{}</span> ", escaped(media_type));
            write_shape(html, document, &content["schema"], 1);
        }
        html.push_str("</dd>\n");
    }
    html.push_str("</dl>\n</details>\n");
}

/// What a value looks like, where a word may be enough.
fn write_shape(html: &mut String, document: &Value, schema: &Value, depth: usize) {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        let name = escaped(name);
        let _infallible = write!(html, "<a href=\"#{name}\">{name}</a> ");
        if schema["description"].is_string() {
            html.push_str(&escaped(text(&schema["description"])));
        }
        return;
    }
    let word = word(schema);
    let _infallible = write!(html, "<code>{}</code> ", escaped(&word));
    html.push_str(&escaped(text(&schema["description"])));
    for other in list(&schema["anyOf"]) {
        write_shape(html, document, other, depth);
    }
    write_schema(html, document, schema, depth);
}

/// The members of an object, or what a list or a map is made of.
fn write_schema(html: &mut String, document: &Value, schema: &Value, depth: usize) {
    if depth > MAX_DEPTH {
        return;
    }
    let required: Vec<&str> = list(&schema["required"]).map(text).collect();
    let mut parts: Vec<(String, &Value)> = members(&schema["properties"])
        .map(|(name, part)| {
            let mark = if required.contains(&name) { "" } else { " ?" };
            (format!("{name}{mark}"), part)
        })
        .collect();
    parts.extend(schema.get("items").map(|items| ("each".to_owned(), items)));
    let named = schema.get("additionalProperties").filter(|part| part.is_object());
    parts.extend(named.map(|part| ("by name".to_owned(), part)));
    if parts.is_empty() {
        if depth == 0 {
            put(html, "p", &word(schema));
        }
        return;
    }
    html.push_str("<dl>\n");
    for (name, part) in parts {
        put(html, "dt", &name);
        html.push_str("<dd>");
        write_shape(html, document, part, depth + 1);
        html.push_str("</dd>\n");
    }
    html.push_str("</dl>\n");
}

/// The kind of a value in a word or two.
fn word(schema: &Value) -> String {
    let shown = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let joined = |values: &Value| list(values).map(shown).collect::<Vec<_>>().join(" | ");
    match schema {
        Value::Object(keys) if keys.contains_key("const") => shown(&schema["const"]),
        Value::Object(keys) if keys.contains_key("enum") => joined(&schema["enum"]),
        Value::Object(keys) if keys.contains_key("anyOf") => "one of".to_owned(),
        _ if schema["type"].is_array() => joined(&schema["type"]),
        _ if schema["type"].is_string() => shown(&schema["type"]),
        _ => "any JSON".to_owned(),
    }
}

/// What a reference leads to; anything else is itself.
fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    let mut value = value;
    while let Some(path) = value["$ref"].as_str() {
        let Some(found) = document.pointer(path.trim_start_matches('#')) else { break };
        value = found;
    }
    value
}

fn open_card(html: &mut String, class: &str, id: &str, title: &str, summary: &str) {
    let [id, title, summary] = [id, title, summary].map(escaped);
    let _infallible = writeln!(
        html,
        "<details class=\"card {class}\" id=\"{id}\"><summary><code>{title}</code> {summary}</summary>"
    );
}

fn put(html: &mut String, element: &str, words: &str) {
    let _infallible = writeln!(html, "<{element}>{}</{element}>", escaped(words));
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn members(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter).map(|(key, value)| (key.as_str(), value))
}
