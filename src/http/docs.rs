//! `/docs`: what can be asked over HTTP (OpenAPI) and said on the socket (AsyncAPI), for programs as
//! documents and for people as a page made of them. Both are written by hand, in `docs/`; tests hold
//! them to every path, method and status of the router, and to the answers of a real bridge
//! (`tests/it/live/interfaces.rs`).

use std::sync::LazyLock;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use serde_json::{Map, Value};
use yaml_rust2::{Yaml, YamlLoader};

use super::{HttpState, page};

mod html;
#[cfg(test)]
mod tests;

const OPENAPI: &str = include_str!("docs/openapi.yaml");
const ASYNCAPI: &str = include_str!("docs/asyncapi.yaml");

/// What is ours and cannot be wrong at run time.
const READ: &str = "tests read both documents";

static OPENAPI_JSON: LazyLock<Value> = LazyLock::new(|| parsed(OPENAPI).expect(READ));
static ASYNCAPI_JSON: LazyLock<Value> = LazyLock::new(|| parsed(ASYNCAPI).expect(READ));
static PAGE: LazyLock<String> = LazyLock::new(|| html::page(&OPENAPI_JSON, &ASYNCAPI_JSON));

/// What a browser shows, so that it may be opened as the dashboard is.
pub(super) const SHOWN: [&str; 5] = [
    "/docs",
    "/docs/openapi.yaml",
    "/docs/openapi.json",
    "/docs/asyncapi.yaml",
    "/docs/asyncapi.json",
];

pub(super) fn paths() -> [(&'static str, MethodRouter<HttpState>); 5] {
    let [page, openapi_yaml, openapi_json, asyncapi_yaml, asyncapi_json] = SHOWN;
    [
        (page, get(|| async { page::secured(&PAGE) })),
        (openapi_yaml, get(|| async { yaml(OPENAPI) })),
        (openapi_json, get(|| async { axum::Json(&*OPENAPI_JSON).into_response() })),
        (asyncapi_yaml, get(|| async { yaml(ASYNCAPI) })),
        (asyncapi_json, get(|| async { axum::Json(&*ASYNCAPI_JSON).into_response() })),
    ]
}

fn yaml(text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, "application/yaml")], text).into_response()
}

/// The first document of a YAML text. None if it is none, or has what JSON has not.
fn parsed(text: &str) -> Option<Value> {
    json(YamlLoader::load_from_str(text).ok()?.first()?)
}

fn json(yaml: &Yaml) -> Option<Value> {
    Some(match yaml {
        Yaml::Null => Value::Null,
        Yaml::Boolean(yes) => (*yes).into(),
        Yaml::Integer(number) => (*number).into(),
        Yaml::Real(_) => yaml.as_f64()?.into(),
        Yaml::String(text) => text.as_str().into(),
        Yaml::Array(items) => items.iter().map(json).collect::<Option<Vec<_>>>()?.into(),
        Yaml::Hash(members) => {
            let members =
                members.iter().map(|(key, value)| Some((key.as_str()?.to_owned(), json(value)?)));
            members.collect::<Option<Map<_, _>>>()?.into()
        }
        Yaml::Alias(_) | Yaml::BadValue => return None,
    })
}
