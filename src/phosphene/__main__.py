"""``python -m phosphene``: the command line."""

from phosphene.cli import main

main()
