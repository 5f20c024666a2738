"""``python -m phosphene.cli``."""

from phosphene.cli import main

main()
