//! The documents against the router: every path, method and lock.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::http::tests::Running;
use crate::http::{Limits, paths};

/// The methods that a document has for a path, as the router writes them.
fn documented(item: &Value) -> BTreeSet<String> {
    let methods = item.as_object().unwrap().keys().filter(|key| *key != "parameters");
    let methods = methods.map(|method| method.to_uppercase());
    methods.flat_map(|m| if m == "GET" { vec![m, "HEAD".to_owned()] } else { vec![m] }).collect()
}

#[tokio::test]
async fn every_path_and_method_of_the_router_is_documented_and_the_other_way_round() {
    let running = Running::start(Limits::default(), Some("secret")).await;
    let there: BTreeSet<&str> = paths(&running.state).iter().map(|(path, _)| *path).collect();
    let document: BTreeMap<&str, &Value> =
        OPENAPI_JSON["paths"].as_object().unwrap().iter().map(|(k, v)| (k.as_str(), v)).collect();
    assert_eq!(there, document.keys().copied().collect());
    for (path, item) in document {
        let asked = path.replace("{name}", "x");
        let text = format!(
            "TRACE {asked} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer secret\r\n\
             connection: close\r\n\r\n"
        );
        let answer = running.ask(&text).await;
        assert_eq!(answer.code, 405, "{path}");
        let allowed = answer.head.lines().find_map(|line| line.strip_prefix("allow: ")).unwrap();
        let allowed: BTreeSet<String> =
            allowed.split(',').map(|method| method.trim().to_uppercase()).collect();
        assert_eq!(allowed, documented(item), "{path}");
    }
    running.stopped().await;
}

#[tokio::test]
async fn what_needs_the_token_says_so_and_nothing_else_does() {
    let running = Running::start(Limits::default(), Some("secret")).await;
    for (path, item) in OPENAPI_JSON["paths"].as_object().unwrap() {
        for (method, operation) in
            item.as_object().unwrap().iter().filter(|(k, _)| *k != "parameters")
        {
            let (method, asked) = (method.to_uppercase(), path.replace("{name}", "x"));
            let text = format!("{method} {asked} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            let is_closed = operation["security"].as_array().is_none_or(|list| !list.is_empty());
            let closed = running.ask(&text).await.code == 401;
            assert_eq!(closed, is_closed, "{method} {path}");
            assert_eq!(operation["responses"].get("401").is_some(), is_closed, "{method} {path}");
            let password = "authorization: Basic YTpzZWNyZXQ="; // a:secret
            let text = text.replace("host: x", &format!("host: x\r\n{password}"));
            let shown = list(&operation["security"]).any(|one| one.get("password").is_some());
            let opened = !is_closed || shown;
            let status = running.status(&text).await;
            assert_eq!(status != 401, opened, "{method} {path}, with a password");
        }
    }
    running.stopped().await;
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Every reference leads somewhere, and everything that is to be referred to is.
#[test]
fn references_lead_somewhere_and_nothing_is_left_over() {
    for document in [&*OPENAPI_JSON, &*ASYNCAPI_JSON] {
        let mut found = BTreeSet::new();
        collect(document, &mut found);
        for path in &found {
            let path = path.strip_prefix('#').unwrap();
            assert!(document.pointer(path).is_some(), "{path}");
        }
        for (kind, parts) in document["components"].as_object().unwrap() {
            for name in parts.as_object().unwrap().keys().filter(|_| kind != "securitySchemes") {
                let path = format!("#/components/{kind}/{name}");
                assert!(found.contains(&path), "{path} is referred to by nothing");
            }
        }
    }
}

fn collect(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            into.extend(members.get("$ref").map(|path| path.as_str().unwrap().to_owned()));
            members.values().for_each(|value| collect(value, into));
        }
        Value::Array(items) => items.iter().for_each(|value| collect(value, into)),
        _ => {}
    }
}

#[test]
fn the_page_has_everything_and_needs_nothing() {
    let operations = OPENAPI_JSON["paths"].as_object().unwrap().values();
    let ids = operations
        .flat_map(|item| item.as_object().unwrap().values())
        .filter_map(|operation| operation["operationId"].as_str());
    let messages = ASYNCAPI_JSON["components"]["messages"].as_object().unwrap();
    let schemas = OPENAPI_JSON["components"]["schemas"].as_object().unwrap();
    let messages = messages.keys().map(|name| format!("message-{name}"));
    let all = ids.map(str::to_owned).chain(messages).chain(schemas.keys().cloned());
    for id in all {
        assert_eq!(PAGE.matches(&format!(" id=\"{id}\"")).count(), 1, "{id}");
    }
    for link in PAGE.split("href=\"#").skip(1) {
        let id = link.split('"').next().unwrap();
        assert!(PAGE.contains(&format!(" id=\"{id}\"")), "{id}");
    }
    for loads in ["<script", "src=", "http://", "https://"] {
        assert!(!PAGE.contains(loads), "{loads}");
    }
}
