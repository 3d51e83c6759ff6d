"""``python -m gsvr``: the command, where the script is not on the path."""

from gsvr.cli import main

if __name__ == "__main__":
    main()
