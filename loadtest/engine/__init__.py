"""The open-loop engine: requests leave when they are due, whether or not others were answered."""
