"""Pictures of the dashboards without Grafana: drawn from the same JSON and the same queries.

For the documentation, where no Grafana is at hand. What is drawn comes from Prometheus' answers to
the panels' own queries; sizes, units, colours, thresholds and words come from the panels. Fonts and
details of the drawing are not Grafana's.
"""
