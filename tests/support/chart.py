"""Rendering the chart, and what the tests of it share."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.support.patience import patient
from tools.chart_reference import CHART
from tools.parts import kubernetes

ROOT = CHART.parent.parent
PLAN = """
  plan:
    objectives: {p99: 50ms, errors: 0.5 %}
    payloads: {path: /v2/models/delays/infer, count: 50, template: {inputs: [{name: x, shape: [1, 2], datatype: FP64, data: {$vector: 2}}]}}
    stages: [{name: steady, load: {rate: 20, seconds: 2}}]
"""
MODEL = "model: {image: {repository: registry.example/delays, tag: '7'}}\n"
CASES = {
    "least": MODEL,
    "one replica": "model: {image: {repository: m}, replicas: 1}",
    "monitored": MODEL
    + """
commonLabels: {release: kube-prometheus-stack}
podMonitor: {enabled: true, labels: {a: b}, scrapeProtocols: [PrometheusProto, PrometheusText0.0.4],
  relabelings: [{sourceLabels: [__meta_kubernetes_pod_node_name], targetLabel: node}], metricRelabelings: [{regex: le, action: labeldrop}]}
prometheusRule: {enabled: true, labels: {c: d}, alertLabels: {team: pricing}, runbooks: {url: "https://wiki.example/"},
  extraGroups: [{name: slo, rules: [{alert: Mine, expr: "up == 0", labels: {severity: page}}]}]}
dashboards: {enabled: true}
""",
    "all of the configuration": MODEL
    + """
config:
  workers: 2
  models: [{name: delays, version: "3", baseline: baseline.json, performance: {prediction: p_late, threshold: 0.5}}]
  challengers: [{name: candidate, url: "http://candidate.serving.svc:8080", mirror: {rate: 0.5, timeout: 5s}}]
  experiments: [{name: canary, challengers: [candidate], mode: canary, max_duration: 14d, metrics: [{metric: latency_p99, margin: 10 %}]}]
  limits: {connections: 100000}
  monitoring: {run_length: 100000000, learn: 10000000}
  feedback: {max_rows: 20000000}
  objectives: {latency_p99: "<= 50ms", accuracy: ">= 0.9"}
  notify: [{kind: webhook, url_env: HOOK, secret_env: HOOK_SECRET}]
sidecar:
  env:
    - {name: HOOK, value: "http://hook.example"}
    - {name: HOOK_SECRET, valueFrom: {secretKeyRef: {name: hook, key: secret}}}
  envFrom: [{secretRef: {name: more}}]
  files: {baseline.json: '{"format": "understudy-baseline", "model": "delays"}'}
  readyPath: /v2/health/ready
  livenessProbe: {tcpSocket: {port: 8080}, periodSeconds: 30}
  drain: {delaySeconds: 3, seconds: 40, modelSeconds: 5}
ports: {traffic: 9000, control: 9001, model: 9002}
""",
    "a model server with everything": """
model:
  replicas: 5
  image: {repository: m, digest: "sha256:%s", pullPolicy: Always}
  command: [mlserver]
  args: [start, /models]
  env: [{name: MLSERVER_HTTP_PORT, value: "8081"}, {name: S3_SECRET_KEY, valueFrom: {secretKeyRef: {name: s3, key: k}}}]
  envFrom: [{configMapRef: {name: more}}]
  initContainers:
    - name: fetch
      image: registry.example/fetch:1
      command: [fetch]
      resources: {requests: {cpu: 10m, memory: 32Mi}, limits: {memory: 64Mi}}
      securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, privileged: false, capabilities: {drop: [ALL]}}
      volumeMounts: [{name: model-tmp, mountPath: /tmp}]
  rollingUpdate: {maxSurge: 0, maxUnavailable: 50%%}
  startupProbe: {httpGet: {path: /v2/health/live, port: 8081}, failureThreshold: 600}
  readinessProbe: {httpGet: {path: /v2/health/ready, port: 8081}}
  livenessProbe: {httpGet: {path: /v2/health/live, port: 8081}}
  resources: {requests: {cpu: 1, memory: 1Gi}, limits: {memory: 2Gi, nvidia.com/gpu: 1}}
  volumes: [{name: models, persistentVolumeClaim: {claimName: models, readOnly: true}}]
  volumeMounts: [{name: models, mountPath: /models, readOnly: true}]
  podAnnotations: {a: b}
  podLabels: {c: d}
  nodeSelector: {gpu: "true"}
  tolerations: [{key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}]
  affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {c: d}}}]}}
  priorityClassName: high
  runtimeClassName: nvidia
image: {repository: registry.example/understudy, tag: "1.2.3", pullPolicy: Always}
imagePullSecrets: [{name: registry}]
token: {existingSecret: mine, key: bearer}
serviceAccount: {create: true, name: own, annotations: {eks.amazonaws.com/role-arn: "arn:aws:iam::1:role/r"}}
service: {type: LoadBalancer, port: 8000, controlPort: 9999, annotations: {x: z}}
topologySpread: {maxSkew: 2, whenUnsatisfiable: DoNotSchedule, keys: [topology.kubernetes.io/zone]}
podDisruptionBudget: {maxUnavailable: 25%%}
networkPolicy: {clients: [{namespaceSelector: {}}], control: [], egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8}}]}]}
autoscaling: {enabled: true, minReplicas: 3, maxReplicas: 30, metrics: [{name: understudy_requests_per_second, averageValue: 100}]}
"""
    % ("0" * 64),
    "no spread, no policy, no test": MODEL
    + """
networkPolicy: {enabled: false}
podDisruptionBudget: {enabled: false}
topologySpread: {keys: []}
serviceAccount: {create: false, name: there}
test: {enabled: false}
""",
    "addresses of IPv6": MODEL + "ports: {address: '[::]'}\ninjector: {enabled: true}\ngate:\n  enabled: true" + PLAN,
    "open egress": MODEL + "networkPolicy: {restrictEgress: false}",
    "evaluator": MODEL + "evaluator: {enabled: true, env: [{name: A, value: b}], config: {records: {keep: 10}}, podLabels: {c: d}, podAnnotations: {a: b}}\npodMonitor: {enabled: true}",
    "evaluator alone": "model: {enabled: false}\nevaluator: {enabled: true, replicas: 1}",
    "gate": MODEL + "gate:\n  enabled: true" + PLAN,
    "gate of a url": MODEL + "gate:\n  enabled: true\n  env: [{name: MODEL_AUTH, valueFrom: {secretKeyRef: {name: model, key: auth}}}]\n  target: http://other.svc:80\n  reportClaim: reports\n  hooks: [pre-install, pre-upgrade]\n  files: {bodies.jsonl: '{}'}" + PLAN,
    "test with a plan": MODEL + "test:\n  files: {a.txt: x}" + PLAN,
    "locust": MODEL + "locust: {enabled: true, workers: 3, rate: 12.5}",
    "locust runs": MODEL + "locust: {enabled: true, mode: run, target: 'http://other.svc', users: 8, spawnRate: 0.5, runTime: 90s, file: 'from locust import HttpUser'}",
    "injector": MODEL + "injector: {enabled: true}",
    "injector, cert-manager": "model: {enabled: false}\ninjector: {enabled: true, replicas: 1, failurePolicy: Fail, certificate: {from: cert-manager}}",
    "injector, own certificate": "model: {enabled: false}\ninjector: {enabled: true, timeoutSeconds: 2, certificate: {from: secret, secretName: tls, ca: PEM}}",
    "tls": MODEL
    + """
config: {listen: {tls: {certificate: /tls/tls.crt, key: /tls/tls.key}}, models: [{name: m}]}
sidecar:
  readyPath: /v2/health/ready
  extraVolumes: [{name: tls, secret: {secretName: server-tls}}]
  extraVolumeMounts: [{name: tls, mountPath: /tls, readOnly: true}]
""",
    "in front of another's": """
model: {external: "http://delays-stable.serving.svc:8080", replicas: 1}
networkPolicy: {egress: [{to: [{podSelector: {matchLabels: {app: delays}}}]}]}
config:
  models: [{name: delays}]
  challengers: [{name: candidate, url: "http://delays-canary.serving.svc:8080"}]
  experiments: [{name: delays-rollout, challengers: [candidate]}]
""",
    "another name": MODEL + "nameOverride: watch\nfullnameOverride: a-name-that-is-rather-long-for-a-release-of-this-chart",
    "everything": MODEL
    + "podMonitor: {enabled: true}\nprometheusRule: {enabled: true}\ndashboards: {enabled: true}\n"
    "autoscaling: {enabled: true}\nevaluator: {enabled: true}\nlocust: {enabled: true}\n"
    "injector: {enabled: true}\ngate:\n  enabled: true" + PLAN,
}  # fmt: skip
_KAFKA = "config: {kafka: {bootstrap: [kafka.kafka.svc:9092]}, models: [{name: delays}]}\n"
CASES |= {
    name: CASES[name] + "\n" + _KAFKA for name in ("evaluator", "evaluator alone", "everything")
}
OLDEST, NEWEST = kubernetes.KUBERNETES[0], kubernetes.KUBERNETES[-1]


def helm(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run Helm, or skip."""
    program = str(kubernetes.need("helm"))
    return subprocess.run(
        [program, *arguments], capture_output=True, text=True, timeout=patient(60), **options
    )


@cache
def render(
    case: str,
    version: str = NEWEST,
    chart: Path = CHART,
    name: str = "demo",
    namespace: str = "serving",
) -> list[dict[str, Any]]:
    """The manifests of a case."""
    done = helm(
        *("template", name, str(chart), "--namespace", namespace, "--kube-version", version),
        *("--values", "-"),
        input=CASES.get(case, case),
    )
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.load_all(done.stdout, yaml.CSafeLoader) if one]


def refusal(values: str) -> str:
    """What Helm says to values that it does not take."""
    done = helm("template", "demo", str(CHART), "--kube-version", NEWEST, "--values", "-", input=values)  # fmt: skip
    assert done.returncode != 0, done.stdout
    return done.stderr


def of_kind(manifests: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [one for one in manifests if one["kind"] == kind]


def named(manifests: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    (found,) = [one for one in of_kind(manifests, kind) if one["metadata"]["name"] == name]
    return found


def pods(manifests: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every pod and template of one, as a pod, with the name of what it is of."""
    for one in manifests:
        name = f"{one['kind']}/{one['metadata']['name']}"
        if one["kind"] == "Pod":
            yield name, one
        elif "template" in one.get("spec", {}):
            yield name, {"metadata": {}, **one["spec"]["template"]}


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
