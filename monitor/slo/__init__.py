"""Service-level objectives: compiled to rules, alerts, Alertmanager routes and their unit tests.

Everything here is pure except :mod:`understudy.monitor.slo.promtool` and
:mod:`understudy.monitor.cli.slo`: objectives in, plain data and text out.
"""
