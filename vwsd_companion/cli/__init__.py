"""The `vwsd` command. Each subcommand is one function under `@command` in the module of its kind;
heavy parts are imported where they are needed.

Exit codes: 0 done; 1 a notebook failed or a check did not hold; 2 the command could not be carried
out (bad input, missing file, full disk); 3 a fault of this program, whose traceback is in the log
file that its sentence names. 130 and 143: ended by a signal.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import traceback
from contextlib import contextmanager, redirect_stdout

from vwsdlib import __version__
from vwsdlib.errors import VwsdError

# the others register their commands, in the order of `vwsd --help`
from . import companion, encoders, files, last_resort, polclip, why, wsd  # noqa: F401
from .base import COMMANDS, add_commands

INTERNAL = 3  # exit code of a fault of ours


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="vwsd",
        description="Visual word sense disambiguation: find the picture that a phrase means.",
        epilog=(
            "`vwsd COMMAND --help` explains each with an example. Start with `vwsd doctor` and"
            " `vwsd run --profile demo`."
        ),
    )
    top.add_argument("--version", action="version", version=f"vwsd {__version__}")
    add_commands(top)
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code. --help, --version and a wrong usage raise
    SystemExit, as argparse does.

    Every fault ends in one sentence on stderr: named ones with 2, those that are not meant to
    happen with 3 and a log file.
    """
    last_resort.prepare_streams()
    if sys.stdout is None:
        return _fail(
            "",
            VwsdError(
                "the standard output is closed", remedy="Leave away the >&- behind the command."
            ),
        )
    watched = last_resort.Watched(sys.stdout)
    with redirect_stdout(watched):
        code, name, sentence = _carry_out(sys.argv[1:] if arguments is None else arguments)
        of_stdout = watched.finish()
    if isinstance(of_stdout, BrokenPipeError):  # `vwsd ... | head` is no fault
        return 0
    if of_stdout:
        sentence = VwsdError(
            f"the standard output cannot be written: {of_stdout.strerror or of_stdout}",
            remedy="What was printed is lost; free some space, or send it elsewhere.",
        )
        code = 2
    if isinstance(
        sentence, SystemExit
    ):  # raised again for who calls us, once what was printed has arrived
        raise sentence
    return _fail(name, sentence, code) if sentence else code


def _carry_out(command_line: list[str]) -> tuple[int, str, object]:
    """(exit code, subcommand, sentence for stderr or "") of one command line; whatever is raised
    becomes a sentence, but argparse's SystemExit.
    """
    name, debug = "", "--debug" in command_line
    try:
        with _ended_by_signals():
            options = parser().parse_args(command_line)
            name = options.command
            return COMMANDS[name](options), name, ""
    except SystemExit as e:  # of argparse: --help, or a usage that it has explained
        return 0, name, e
    except KeyboardInterrupt:
        return 130, name, "interrupted; what was finished is kept, run it again to go on."
    except _Ended as e:
        return (
            128 + e.number,
            name,
            (
                f"ended by {signal.Signals(e.number).name}; what was finished is kept, run it again"
                " to go on."
            ),
        )
    except Exception as fault:
        if fault is getattr(sys.stdout, "fault", None):  # `main` says it
            return 2, name, ""
        if debug:
            traceback.print_exception(fault)
        code, sentence = _explained(fault, command_line)
        return code, name, sentence


def _explained(fault: BaseException, command_line: list[str]) -> tuple[int, object]:
    """Exit code and sentence of whatever ended a command."""
    if isinstance(fault, VwsdError):
        return 2, fault
    if isinstance(fault, ModuleNotFoundError) and not (fault.name or "vwsdlib").startswith(
        "vwsdlib"
    ):
        return (
            2,
            (
                f"this needs the package {fault.name}, which is not installed. Install it with what"
                " else belongs to it: pip install 'vwsdlib[demo]'"
            ),
        )  # scores and audits need little, models and notebooks what an extra brings
    error = last_resort.as_error(fault)
    if error:
        return 2, error
    return INTERNAL, last_resort.explain(fault, command_line)


def _fail(name: str, sentence: object, code: int = 2) -> int:
    """Say the sentence on stderr; returns the code."""
    try:
        print(f"vwsd {name}: {sentence}" if name else f"vwsd: {sentence}", file=sys.stderr)
    except OSError:  # nobody listens there either
        pass
    return code


class _Ended(BaseException):
    """A signal that asks the process to end, raised where it came so that every `finally` tidies
    up.
    """

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


@contextmanager
def _ended_by_signals():
    """SIGTERM and SIGHUP end the command the way an interrupt does, where nobody else handles
    them."""
    mine, handled = os.getpid(), []

    def end(number, _):
        if os.getpid() != mine:  # a forked worker simply dies
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        raise _Ended(number)

    if threading.current_thread() is threading.main_thread():
        handled = [
            number
            for number in (signal.SIGTERM, signal.SIGHUP)
            if signal.getsignal(number) is signal.SIG_DFL
        ]
    for number in handled:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, signal.SIG_DFL)
