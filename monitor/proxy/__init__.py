"""The data plane: routes, forwards, times and mirrors. It imports no heavy library, on purpose."""
