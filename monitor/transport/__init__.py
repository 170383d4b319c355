"""How records travel from the data plane to the evaluation plane."""
