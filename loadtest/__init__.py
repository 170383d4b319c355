"""Load, capacity and chaos: a client program that talks to the service over the network only."""
