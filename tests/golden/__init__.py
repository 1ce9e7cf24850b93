"""Golden files and the script that made them."""
