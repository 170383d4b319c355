"""The data plane: routes, forwards, times and mirrors. It must not import heavy libraries."""
