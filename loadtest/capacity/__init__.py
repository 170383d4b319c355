"""How much a server can take, and how many of them a traffic needs."""
