"""How good features are: k-NN, linear probe, intervals of the difference, gates. Maths only: no files."""
