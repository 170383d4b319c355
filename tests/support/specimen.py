"""A configuration that uses every part of the file."""

from __future__ import annotations

SPECIMEN = """
version: 1
listen: 127.0.0.1:8080
control: {listen: "127.0.0.1:9090", token_env: UNDERSTUDY_TOKEN}
workers: 3
models:
  - name: delays
    version: "1"
    features: [a, b, c]
    predictions: [p_late]
  - name: scores
    protocol: json
    paths: ["/score/*"]
    json: {features: {age: /customer/age}, predictions: {score: /result/score}}
champion:
  url: https://models.example/base/
  tls: {verify: false, server_name: inner}
  host: models.internal
  timeouts: {connect: 500ms, first_byte: 10s, total: 2m}
  max_connections: 7
  max_waiting: 8
  idle: 3s
challengers:
  - name: candidate
    url: http://127.0.0.1:8082/prefix
    headers: {X-Env: shadow}
    mirror: {rate: 0.25, timeout: 1s, connections: 4, queue: {requests: 9, bytes: 1MiB},
             max_response: 2KiB, breaker: {failures: 3, open: 1s, max_open: 9s, probes: 1}}
  - {name: plain, url: "http://h", host: named.example}
capture: {max_body: 1KiB, headers: [X-Segment]}
limits: {head: 4KiB, target: 1KiB, connections: 5, header_timeout: 1s, keepalive: 2s, drain: 3s}
handoff: {max_bytes: 1MiB}
"""
