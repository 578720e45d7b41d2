"""What every command is made of: its registration, its options (arguments.yml), and JSON on
stdout.
"""

from __future__ import annotations

import argparse
import inspect
import json
import sys
from collections.abc import Callable
from pathlib import Path

import yaml

from .arguments import TYPES, InPlace, at_least

Command = Callable[[argparse.Namespace], int]
COMMANDS: dict[str, Command] = {}


def command(name: str = "") -> Callable[[Command], Command]:
    """Register a subcommand under `name`, by default its function's; its docstring is its help, the
    part after `Example:` its epilog, its options stand in arguments.yml.
    """

    def register(function: Command) -> Command:
        COMMANDS[name or function.__name__] = function
        return function

    return register


def add_commands(top: argparse.ArgumentParser) -> None:
    """A subcommand for each that is registered."""
    text = Path(__file__).with_name("arguments.yml").read_text(encoding="utf-8")
    options = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    subcommands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in dict.fromkeys([*options, *COMMANDS]):  # in the order of arguments.yml
        doc = inspect.cleandoc(COMMANDS[name].__doc__).replace("%", "%%")
        text, _, example = doc.partition("Example:")
        parser = subcommands.add_parser(
            name,
            help=" ".join(text.split("\n\n")[0].split()),
            description=text.strip(),
            epilog=f"example:{example.rstrip()}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        for option in options.get(name, ()):
            _add(parser, option)
        parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def _add(parser: argparse._ActionsContainer, option: dict) -> None:
    """One entry of arguments.yml: an option, a positional, a group of which one must be given."""
    if "one_of" in option:
        group = parser.add_mutually_exclusive_group(required=True)
        for each in option["one_of"]:
            _add(group, each)
        return
    settings = dict(option)
    names = settings.pop("name").split()
    if "at_least" in settings:
        settings["type"] = at_least(settings.pop("at_least"))
    elif "type" in settings:
        settings["type"] = TYPES[settings["type"]]
    if "instead" in settings:
        settings["action"] = InPlace
    elif settings.get("action") == "boolean":
        settings["action"] = argparse.BooleanOptionalAction
    parser.add_argument(*names, **settings)


def print_json(value: object) -> None:
    """Print JSON; as plain ASCII where the terminal lacks a letter, so that it stays JSON."""
    text = json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=1, allow_nan=False)
    print(text)
