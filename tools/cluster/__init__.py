"""A Kubernetes cluster of one node, built from source, for tests: see README.md."""
