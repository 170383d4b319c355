"""Objectives as OpenSLO writes them."""

from __future__ import annotations

NONE = """
version: 1
listen: 127.0.0.1:0
models: [{name: delays}]
champion: {url: "http://127.0.0.1:1"}
"""


OPENSLO = """
apiVersion: openslo/v1
kind: SLI
metadata: {name: good}
spec:
  ratioMetric:
    counter: true
    good: {metricSource: {type: Prometheus, spec: {query: 'sum(http_total{code!~"5.."})'}}}
    total: {metricSource: {type: Prometheus, spec: {query: 'http_total{}'}}}
---
apiVersion: openslo/v1
kind: SLO
metadata: {name: web}
spec:
  service: shop
  indicatorRef: good
  timeWindow: [{duration: 4w, isRolling: true}]
  budgetingMethod: Occurrences
  objectives: [{targetPercent: 99.5}]
  alertPolicies: [{alertPolicyRef: x}]
---
apiVersion: openslo/v1
kind: SLO
metadata: {name: tail}
spec:
  service: shop
  indicator:
    metadata: {name: p99}
    spec:
      thresholdMetric:
        metricSource: {type: prometheus, spec: {query: latency_p99_seconds}}
  budgetingMethod: Timeslices
  objectives: [{op: gte, value: 0.5, target: 0.99}]
---
apiVersion: openslo/v1
kind: AlertPolicy
metadata: {name: x}
spec: {}
"""
