"""What the container image is made of: pinned packages, and the list of them."""
