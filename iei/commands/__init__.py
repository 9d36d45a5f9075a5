"""Commands of the `iei` program."""
