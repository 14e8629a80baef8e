"""`python -m rmft.cli`, the same as `rmft`."""

from rmft.cli import main

if __name__ == "__main__":
    main()
