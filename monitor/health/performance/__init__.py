"""Accuracy of predictions, measured once labels arrive and estimated until then."""
