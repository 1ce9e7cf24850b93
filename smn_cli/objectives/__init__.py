"""What a step minimises: one file an objective, one row each in the table."""
