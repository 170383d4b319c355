"""The supervisor: worker and evaluation processes, listening sockets, run directory, reload."""
