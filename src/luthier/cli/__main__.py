"""``python -m luthier.cli``: the command line where no script is on the path."""

from luthier.cli import main

if __name__ == "__main__":
    main()
