"""Injects the sidecar into annotated pods: a mutating admission webhook, and manifests."""
