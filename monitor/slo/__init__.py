"""Service-level objectives: from what is acceptable to rules, alerts, routes and their tests.

Everything here is pure but :mod:`monitor.slo.promtool` and :mod:`monitor.slo.cli`: objectives in,
plain data and text out.
"""
