"""Records without the proxy: posted, as CloudEvents, or from a Python model server."""
