"""What computes a model: one folder for each library, and the table that one of them is chosen from."""
