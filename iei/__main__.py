"""`python -m iei`: the same as `iei`."""

from iei.cli import main

main()
