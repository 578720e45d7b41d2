"""`python -m vwsdlib.cli`, the command's former address: runs what is installed as `vwsd`."""

import sys
from importlib.metadata import entry_points


def main() -> int:
    """The exit code of the installed `vwsd` command."""
    (command,) = entry_points(group="console_scripts", name="vwsd")
    return command.load()()


if __name__ == "__main__":
    sys.exit(main())
