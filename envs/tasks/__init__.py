"""What to do: one task a file, for every simulator that can run it."""
