"""The sidecar in pods that ask for it: a mutating admission webhook, and the same for files."""
