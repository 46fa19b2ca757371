"""AdaS&S, in parts: path sampling and search policies in numpy, the strategy itself in torch."""
