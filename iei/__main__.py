"""`python -m iei` runs the `iei` command."""

from iei.commands.main import main

main()
