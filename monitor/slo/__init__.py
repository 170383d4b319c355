"""Service-level objectives: from what is acceptable to rules, alerts, routes and their tests.

Everything here is pure but :mod:`understudy.monitor.slo.promtool` and
:mod:`understudy.monitor.cli.slo`: objectives in, plain data and text out.
"""
