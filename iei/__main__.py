"""`python -m iei`: the same as `iei`."""

from iei.commands.main import main

main()
