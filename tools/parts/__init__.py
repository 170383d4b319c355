"""The real programs and data that tests talk to: fetching and building them, and finding them."""
