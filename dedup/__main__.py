"""`python -m dedup` is the command line."""

from dedup.cli.main import main

if __name__ == "__main__":
    main()
