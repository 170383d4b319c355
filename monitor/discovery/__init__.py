"""What a model server speaks, found by asking it: for `init`, `try` and `doctor`."""
