//! The manifests fit each other, the configuration in them, and the program, as far as that shows
//! without a cluster.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use axum::http::StatusCode;
use data_bridge::config::{self, Config};
use yaml_rust2::Yaml;

use super::{OURS, assert_fits, config_with, documents, path, texts};
use crate::bridge::Bridge;

const FOLDER: &str = "deploy/kubernetes";
const SECRETS: &str = "/run/secrets/data-bridge";

fn manifest(name: &str) -> Yaml {
    let mut documents = documents(&format!("{FOLDER}/{name}.yaml"));
    assert_eq!(documents.len(), 1, "{name}");
    documents.remove(0)
}

fn pod() -> Yaml {
    manifest("deployment")["spec"]["template"]["spec"].clone()
}

/// The configuration of the ConfigMap, with its secrets as files in this folder.
fn shipped(dir: &Path) -> Config {
    let text = &manifest("configmap")["data"]["data-bridge.toml"];
    let text = text.as_str().unwrap().replace(SECRETS, dir.to_str().unwrap());
    for (name, value) in manifest("secret.example")["stringData"].as_hash().unwrap() {
        std::fs::write(dir.join(name.as_str().unwrap()), value.as_str().unwrap()).unwrap();
    }
    let file = dir.join("data-bridge.toml");
    std::fs::write(&file, text).unwrap();
    config::load(&[file]).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn every_manifest_is_ours_and_the_required_ones_are_applied() {
    let applied = manifest("kustomization");
    let applied = texts(&applied["resources"]);
    let mut seen = 0;
    for entry in std::fs::read_dir(path(FOLDER)).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        let name = file.strip_suffix(".yaml").expect("only manifests");
        if name == "kustomization" {
            continue;
        }
        seen += 1;
        let manifest = manifest(name);
        assert!(manifest["apiVersion"].as_str().is_some(), "{file}");
        assert!(manifest["kind"].as_str().is_some(), "{file}");
        assert_eq!(manifest["metadata"]["name"].as_str(), Some(OURS), "{file}");
        let optional = ["keda.yaml", "secret.example.yaml"].contains(&file.as_str());
        assert_eq!(applied.contains(&file.as_str()), !optional, "{file}");
    }
    assert_eq!(seen, applied.len() + 2);
}

#[test]
fn the_configuration_loads_and_its_grace_fits_the_pod() {
    let dir = tempfile::tempdir().unwrap();
    let config = shipped(dir.path());
    let killed = pod()["terminationGracePeriodSeconds"].as_i64().unwrap();
    let killed = Duration::from_secs(killed.try_into().unwrap());
    assert!(killed >= config.shutdown.grace + Duration::from_secs(5), "{killed:?}");
}

/// Without servers: the bridge listens before any of them answers.
#[tokio::test(flavor = "multi_thread")]
async fn the_probes_ask_paths_that_the_bridge_answers_without_a_token() {
    let dir = tempfile::tempdir().unwrap();
    shipped(dir.path());
    let over = dir.path().join("over.toml");
    let text = "http.listen = \"127.0.0.1:0\"\nclickhouse.url = \"http://127.0.0.1:9\"\n\
                kafka.brokers = [\"127.0.0.1:9\"]\n";
    std::fs::write(&over, text).unwrap();
    let files = [dir.path().join("data-bridge.toml"), over];
    let mut bridge = Bridge::spawn(dir.path().join("log"), &files);
    bridge.listening().await;
    let pod = pod();
    let container = &pod["containers"][0];
    let ports = container["ports"].as_vec().unwrap();
    let expected =
        [("livenessProbe", StatusCode::OK), ("readinessProbe", StatusCode::SERVICE_UNAVAILABLE)];
    for (probe, status) in expected {
        let get = &container[probe]["httpGet"];
        assert_eq!(bridge.status(get["path"].as_str().unwrap()).await, Some(status), "{probe}");
        assert!(ports.iter().any(|port| port["name"] == get["port"]), "{probe}");
    }
    // this test would see a path that is not there, and one that wants the token
    assert_eq!(bridge.status("/alive").await, Some(StatusCode::UNAUTHORIZED));
    bridge.kill().await;
}

#[test]
fn it_listens_where_the_pod_says() {
    let dir = tempfile::tempdir().unwrap();
    let listen = shipped(dir.path()).http.listen.to_string();
    let pod = pod();
    let port = pod["containers"][0]["ports"][0]["containerPort"].as_i64().unwrap();
    assert_eq!(listen, format!("0.0.0.0:{port}"));
    assert_eq!(manifest("service")["spec"]["ports"][0]["port"].as_i64(), Some(port));
}

#[tokio::test]
async fn the_arguments_and_variables_of_the_pod_are_accepted() {
    let pod = pod();
    let container = &pod["containers"][0];
    let variables = container["env"].as_vec().unwrap().iter();
    let variables: BTreeMap<_, _> = variables
        .map(|env| (env["name"].as_str().unwrap().to_owned(), "pod-1".to_owned()))
        .collect();
    let (ok, said) = config_with(&variables).await;
    assert!(ok && said.contains("pod-1"), "{said}");
    let args = texts(&container["args"]);
    let mounted = container["volumeMounts"].as_vec().unwrap();
    let place = mounted.iter().find(|mount| mount["name"].as_str() == Some("config")).unwrap();
    let file = format!("{}/data-bridge.toml", place["mountPath"].as_str().unwrap());
    assert_eq!(args, ["--config", &file, "run"]);
}

#[test]
fn every_secret_that_the_configuration_reads_is_mounted() {
    let config = manifest("configmap");
    let text = config["data"]["data-bridge.toml"].as_str().unwrap();
    let secret = manifest("secret.example");
    let mut read = 0;
    for rest in text.split(&format!("{SECRETS}/")).skip(1) {
        let name = rest.split('"').next().unwrap();
        assert!(secret["stringData"][name].as_str().is_some(), "{name}");
        read += 1;
    }
    assert_eq!(read, secret["stringData"].as_hash().unwrap().len());
    assert!(!text.contains("password ="), "a secret is in a file of its own");
    let pod = pod();
    let mounts = pod["containers"][0]["volumeMounts"].as_vec().unwrap();
    let of = |place: &str| {
        let mount = mounts.iter().find(|mount| mount["mountPath"].as_str() == Some(place));
        mount.and_then(|mount| mount["name"].as_str()).unwrap().to_owned()
    };
    let volumes = pod["volumes"].as_vec().unwrap();
    let volume = |name: &str| volumes.iter().find(|v| v["name"].as_str() == Some(name)).unwrap();
    let secrets = volume(&of(SECRETS));
    assert_eq!(secrets["secret"]["secretName"], secret["metadata"]["name"]);
    assert_eq!(volume(&of("/etc/data-bridge"))["configMap"]["name"], config["metadata"]["name"]);
}

#[test]
fn the_pod_has_nothing_to_write_to_and_no_privilege() {
    let pod = pod();
    let (whole, container) = (&pod["securityContext"], &pod["containers"][0]["securityContext"]);
    assert_eq!(whole["runAsNonRoot"].as_bool(), Some(true));
    assert_eq!(whole["seccompProfile"]["type"].as_str(), Some("RuntimeDefault"));
    assert_eq!(container["readOnlyRootFilesystem"].as_bool(), Some(true));
    assert_eq!(container["allowPrivilegeEscalation"].as_bool(), Some(false));
    assert_eq!(texts(&container["capabilities"]["drop"]), ["ALL"]);
    assert_eq!(pod["automountServiceAccountToken"].as_bool(), Some(false));
    // as in the image
    let lines = super::dockerfile();
    let user = super::instructions(&lines, "USER").pop().unwrap();
    let id = |key: &str| whole[key].as_i64().unwrap();
    assert_eq!(user, format!("{}:{}", id("runAsUser"), id("runAsGroup")));
}

#[tokio::test]
async fn the_limit_of_memory_fits_what_may_be_held() {
    let folder = tempfile::tempdir().unwrap();
    let held = shipped(folder.path()).backpressure.max_buffer_bytes;
    let held = format!("{}MiB", held / 1024 / 1024);
    let variable = "DATA_BRIDGE__BACKPRESSURE__MAX_BUFFER_BYTES".to_owned();
    let pod = pod();
    let limit = &pod["containers"][0]["resources"]["limits"]["memory"];
    assert_fits(BTreeMap::from([(variable, held)]), limit.as_str().unwrap()).await;
}

#[test]
fn all_of_them_mean_the_same_pods() {
    let deployment = manifest("deployment");
    let labels = &deployment["spec"]["template"]["metadata"]["labels"];
    assert_eq!(&deployment["spec"]["selector"]["matchLabels"], labels);
    assert_eq!(&manifest("service")["spec"]["selector"], labels);
    let budget = manifest("poddisruptionbudget");
    assert_eq!(&budget["spec"]["selector"]["matchLabels"], labels);
    let allowed = budget["spec"]["maxUnavailable"].as_i64().unwrap();
    assert!(allowed < deployment["spec"]["replicas"].as_i64().unwrap(), "somebody always reads");
}

#[test]
fn keda_looks_at_the_group_and_topic_that_the_bridge_reads() {
    let dir = tempfile::tempdir().unwrap();
    let kafka = shipped(dir.path()).kafka.unwrap();
    let keda = manifest("keda");
    let deployment = manifest("deployment");
    assert_eq!(keda["spec"]["scaleTargetRef"]["name"], deployment["metadata"]["name"]);
    let trigger = &keda["spec"]["triggers"][0];
    assert_eq!(trigger["type"].as_str(), Some("kafka"));
    let metadata = &trigger["metadata"];
    assert_eq!(metadata["consumerGroup"].as_str(), Some(kafka.group_id.as_str()));
    assert_eq!(metadata["bootstrapServers"].as_str(), Some(kafka.brokers.join(",").as_str()));
    let text = manifest("configmap")["data"]["data-bridge.toml"].as_str().unwrap().to_owned();
    let topic = format!("kafka_topics = [\"{}\"]", metadata["topic"].as_str().unwrap());
    assert!(text.contains(&topic), "{topic}");
    let (least, most) = (&keda["spec"]["minReplicaCount"], &keda["spec"]["maxReplicaCount"]);
    assert!(least.as_i64().unwrap() <= most.as_i64().unwrap());
}
