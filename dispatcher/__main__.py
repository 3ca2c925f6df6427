"""`python -m dispatcher`: the same as the console script."""

from dispatcher.cli import main

if __name__ == "__main__":
    main()
