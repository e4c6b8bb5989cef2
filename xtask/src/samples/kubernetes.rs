//! What no schema sees in the manifests: names that must be the same in two places, and what a pod may do.

use super::{at, each, variables};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// What the image's own recipe runs as.
const USER: u64 = 65532;
/// A drain may take so long.
const GRACE_SECONDS_MIN: u64 = 60;

/// Everything that does not fit.
pub fn faults(manifests: &[Value], config: &str) -> Vec<String> {
    let one = |kind: &str| {
        let mut found = manifests.iter().filter(|document| document["kind"] == kind);
        found.next().filter(|_| found.next().is_none())
    };
    let (Some(set), Some(service), Some(map)) = (one("StatefulSet"), one("Service"), one("ConfigMap")) else {
        return vec!["there must be one StatefulSet, one Service and one ConfigMap".to_owned()];
    };
    let mut faults = Faults::default();
    let pod = at(set, "spec.template.spec");
    let container = at(pod, "containers.0");
    faults.names(set, service, container);
    faults.volumes(set, pod, container, map, config);
    faults.variables(container, config);
    faults.probes(container);
    faults.rights(pod, container);
    faults.0
}

#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    fn unless(&mut self, holds: bool, fault: impl Into<String>) {
        if !holds {
            self.0.push(fault.into());
        }
    }

    fn equal(&mut self, of: &Value, path: &str, expected: &Value) {
        let found = at(of, path);
        self.unless(found == expected, format!("{path} is {found}, not {expected}"));
    }

    fn names(&mut self, set: &Value, service: &Value, container: &Value) {
        let labels = at(set, "spec.template.metadata.labels");
        self.equal(set, "spec.selector.matchLabels", labels);
        self.equal(service, "spec.selector", labels);
        self.equal(set, "spec.serviceName", at(service, "metadata.name"));
        self.equal(set, "spec.replicas", &json!(1));
        let ports = names(&container["ports"]);
        for port in each(at(service, "spec.ports")) {
            let target = port["targetPort"].as_str().unwrap_or_default();
            self.unless(
                ports.contains(target),
                format!("the service's port {target} is none of the container's"),
            );
        }
    }

    fn volumes(&mut self, set: &Value, pod: &Value, container: &Value, map: &Value, config: &str) {
        let claims: BTreeSet<&str> = each(at(set, "spec.volumeClaimTemplates"))
            .into_iter()
            .filter_map(|claim| at(claim, "metadata.name").as_str())
            .collect();
        let volumes = each(&pod["volumes"]);
        let mut known = claims.clone();
        known.extend(volumes.iter().filter_map(|volume| volume["name"].as_str()));
        let mut durable = Vec::new();
        let mut config_is_there = false;
        let args = each(&container["args"]);
        let file = args.last().and_then(|path| path.as_str()).unwrap_or_default();
        for mount in each(&container["volumeMounts"]) {
            let (name, path) = (text(&mount["name"]), text(&mount["mountPath"]));
            self.unless(known.contains(name), format!("{name} is mounted, and no volume is called that"));
            if claims.contains(name) {
                durable.push(format!("{path}/"));
            }
            let of_map = volumes
                .iter()
                .find(|volume| volume["name"] == name)
                .map(|volume| &volume["configMap"]["name"]);
            if of_map == Some(at(map, "metadata.name")) {
                let entry = file.strip_prefix(&format!("{path}/")).unwrap_or_default();
                config_is_there |= text(&map["data"][entry]) == config;
            }
        }
        self.unless(config_is_there, format!("{file} is not the config of the Compose sample"));
        let ledger: toml::Table = config.parse().unwrap_or_default();
        let ledger = ledger.get("ledger").and_then(|ledger| ledger.get("path")?.as_str()).unwrap_or_default();
        self.unless(
            durable.iter().any(|path| ledger.starts_with(path.as_str())),
            format!("the ledger at {ledger:?} is on no claimed volume"),
        );
    }

    fn variables(&mut self, container: &Value, config: &str) {
        let given = names(&container["env"]);
        for name in variables(config) {
            self.unless(
                given.contains(name),
                format!("the config takes ${{{name}}}, which the container doesn't have"),
            );
        }
        for name in ["DATABASE_URL", "RECOUNT_TOKEN"] {
            let is_secret = each(&container["env"])
                .into_iter()
                .any(|env| env["name"] == name && at(env, "valueFrom.secretKeyRef.name").is_string());
            self.unless(is_secret, format!("{name} does not come from a Secret"));
        }
    }

    fn probes(&mut self, container: &Value) {
        let ports = names(&container["ports"]);
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            self.equal(container, &format!("{probe}.httpGet.path"), &json!("/health/running"));
            let port = text(at(container, &format!("{probe}.httpGet.port")));
            self.unless(ports.contains(port), format!("{probe} asks at {port:?}, which is no port"));
        }
    }

    fn rights(&mut self, pod: &Value, container: &Value) {
        let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap_or(0);
        self.unless(grace >= GRACE_SECONDS_MIN, format!("{grace} s may be too short for a drain"));
        for (path, expected) in [
            ("securityContext.runAsNonRoot", json!(true)),
            ("securityContext.runAsUser", json!(USER)),
            ("securityContext.fsGroup", json!(USER)),
            ("securityContext.seccompProfile.type", json!("RuntimeDefault")),
            ("automountServiceAccountToken", json!(false)),
        ] {
            self.equal(pod, path, &expected);
        }
        for (path, expected) in [
            ("securityContext.allowPrivilegeEscalation", json!(false)),
            ("securityContext.readOnlyRootFilesystem", json!(true)),
            ("securityContext.capabilities.drop", json!(["ALL"])),
        ] {
            self.equal(container, path, &expected);
        }
        for path in ["resources.requests.cpu", "resources.requests.memory", "resources.limits.memory"] {
            self.unless(at(container, path).is_string(), format!("the container says nothing of {path}"));
        }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The names of a list's entries.
fn names(list: &Value) -> BTreeSet<&str> {
    each(list).into_iter().filter_map(|entry| entry["name"].as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "[ledger]\npath = \"/data/ledger\"\n[database.shop]\nurl = \"${DATABASE_URL}\"\n";

    fn manifests() -> Vec<Value> {
        let labels = json!({ "app": "recount" });
        let probe = json!({ "httpGet": { "path": "/health/running", "port": "http" } });
        let secret = |name: &str| json!({ "name": name, "valueFrom": { "secretKeyRef": { "name": "s", "key": "k" } } });
        let container = json!({
            "args": ["run", "/etc/recount/recount.toml"],
            "ports": [{ "name": "http", "containerPort": 7601 }],
            "env": [secret("DATABASE_URL"), secret("RECOUNT_TOKEN")],
            "startupProbe": probe, "livenessProbe": probe, "readinessProbe": probe,
            "resources": { "requests": { "cpu": "1", "memory": "1Mi" }, "limits": { "memory": "1Mi" } },
            "securityContext": {
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] },
            },
            "volumeMounts": [{ "name": "data", "mountPath": "/data" }, { "name": "config", "mountPath": "/etc/recount" }],
        });
        let pod = json!({
            "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 60,
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": USER, "fsGroup": USER, "seccompProfile": { "type": "RuntimeDefault" },
            },
            "containers": [container],
            "volumes": [{ "name": "config", "configMap": { "name": "recount" } }],
        });
        vec![
            json!({ "kind": "ConfigMap", "metadata": { "name": "recount" }, "data": { "recount.toml": CONFIG } }),
            json!({ "kind": "Service", "metadata": { "name": "recount" },
                    "spec": { "selector": labels, "ports": [{ "targetPort": "http" }] } }),
            json!({ "kind": "StatefulSet", "metadata": { "name": "recount" }, "spec": {
                "serviceName": "recount", "replicas": 1, "selector": { "matchLabels": labels },
                "template": { "metadata": { "labels": labels }, "spec": pod },
                "volumeClaimTemplates": [{ "metadata": { "name": "data" } }],
            } }),
        ]
    }

    #[test]
    fn what_does_not_fit_is_told() {
        assert_eq!(faults(&manifests(), CONFIG), Vec::<String>::new());
        let container = "/spec/template/spec/containers/0";
        for (document, pointer, value, told) in [
            (1, "/spec/selector", json!({ "app": "other" }), "spec.selector is"),
            (1, "/spec/ports/0/targetPort", json!("web"), "port web is none"),
            (2, "/spec/serviceName", json!("other"), "spec.serviceName is"),
            (2, "/spec/replicas", json!(2), "spec.replicas is 2"),
            (0, "/data/recount.toml", json!("other"), "is not the config of the Compose sample"),
            (
                2,
                "/spec/volumeClaimTemplates/0/metadata/name",
                json!("other"),
                "data is mounted, and no volume",
            ),
            (2, &format!("{container}/volumeMounts/0/mountPath"), json!("/other"), "is on no claimed volume"),
            (2, &format!("{container}/env/0/name"), json!("URL"), "the config takes ${DATABASE_URL}"),
            (
                2,
                &format!("{container}/env/1"),
                json!({ "name": "RECOUNT_TOKEN", "value": "x" }),
                "RECOUNT_TOKEN does not",
            ),
            (
                2,
                &format!("{container}/livenessProbe/httpGet/path"),
                json!("/health/working"),
                "livenessProbe.httpGet.path",
            ),
            (
                2,
                &format!("{container}/securityContext/readOnlyRootFilesystem"),
                json!(false),
                "readOnlyRootFilesystem",
            ),
            (2, "/spec/template/spec/securityContext/runAsUser", json!(0), "securityContext.runAsUser is 0"),
            (2, "/spec/template/spec/terminationGracePeriodSeconds", json!(5), "5 s may be too short"),
        ] {
            let mut manifests = manifests();
            *manifests[document].pointer_mut(pointer).unwrap() = value;
            let faults = faults(&manifests, CONFIG);
            assert!(faults.iter().any(|fault| fault.contains(told)), "{pointer}: {faults:?}");
        }
    }
}
