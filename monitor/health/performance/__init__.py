"""How good the predictions are: by late labels, and without any."""
