"""``understudy demo``: a story about a model in production, told by real processes in a minute.

Two built-in model servers, the sidecar as a user runs it, and clients that send requests in an open
loop. Everything runs on this machine, in a temporary folder that is removed at the end. The demo
changes what happens; what Understudy says about it is read from its API, and is never written here.
"""
