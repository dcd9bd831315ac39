"""`python -m energylens`."""

from energylens.cli import main

main()
