"""One command that says whether a model server may go live."""
