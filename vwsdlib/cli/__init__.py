"""The `vwsd` command. Each subcommand is one function under `@command` in the room of its kind; heavy parts are imported where they are needed.

Exit codes: 0 done; 1 a notebook failed or a check did not hold; 2 the command could not be carried out (bad input, missing file).
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable

from .. import __version__
from ..errors import VwsdError

COMMANDS: dict[str, tuple[Callable, Callable]] = {}


def command(configure: Callable[[argparse.ArgumentParser], None], name: str = "") -> Callable:
    """Register a subcommand under its function's name, or `name`; its docstring is its help, the part after `Example:` its epilog."""

    def register(function: Callable[[argparse.Namespace], int]) -> Callable:
        COMMANDS[name or function.__name__] = (function, configure)
        return function

    return register


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(prog="vwsd", description="Visual word sense disambiguation: find the picture that a phrase means.",
                                  epilog="`vwsd COMMAND --help` explains each with an example. Start with `vwsd doctor` and `vwsd run --profile demo`.")
    top.add_argument("--version", action="version", version=f"vwsd {__version__}")
    subcommands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (function, configure) in COMMANDS.items():
        text, _, example = inspect.cleandoc(function.__doc__).replace("%", "%%").partition("Example:")
        sub = subcommands.add_parser(name, help=text.splitlines()[0], description=text.strip(), epilog=f"example:{example.rstrip()}",
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
        configure(sub)
        sub.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = parser().parse_args(arguments)
    try:
        return COMMANDS[options.command][0](options)
    except VwsdError as e:
        if options.debug:
            traceback.print_exc()
        print(f"vwsd {options.command}: {e}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as e:  # scores and audits need little, models and notebooks what an extra brings
        if options.debug or (e.name or "vwsdlib").startswith("vwsdlib"):
            raise
        print(f"vwsd {options.command}: this needs the package {e.name}, which is not installed. Install it with what else belongs to it: pip install 'vwsdlib[demo]'", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `vwsd ... | head` is no fault
        sys.stdout = open(os.devnull, "w")
        return 0
    except KeyboardInterrupt:
        print(f"vwsd {options.command}: interrupted; what was finished is kept, run it again to go on.", file=sys.stderr)
        return 130


def _say(value: object) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=1))


from . import files, wsd, encoders, polclip, companion  # noqa: E402, F401  (they register their commands, in the order of `vwsd --help`)
