"""Flags -> one call per stage, and exceptions -> one line and an exit code.

`python -m clue_jax STAGE --flag=value --config=configs/FILE.py[:variant] --config.a.b=value`
"""

from __future__ import annotations

import difflib
import os
import select
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags
from ml_collections import config_flags

from clue_jax import cli_config, cli_help
from clue_jax.cli_stage import Flag, Stage
from clue_jax.cli_stages import STAGES
from clue_jax.config import from_json, to_json
from clue_jax.errors import EXIT_INTERRUPTED, ClueError, ConfigError, Preempted

PROGRAM = "clue-jax"
HELP = ("--help", "-h", "-help")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the stage named first in `argv` (default: the command line); gives the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    group = arguments[0] if arguments and actions(arguments[0]) else ""
    asked = arguments[1:] if group else arguments
    if not asked or asked[0] in (*HELP, "help"):
        code = 0 if asked else ConfigError.exit_code
        overview = cli_help.overview(PROGRAM, STAGES.values(), group)
        return _guarded(PROGRAM, lambda: print(overview, flush=True)) or code
    try:
        stage, rest = find_stage(arguments)
    except ConfigError as error:
        _complain(f"{PROGRAM} {group}".strip(), "error", str(error))
        return error.exit_code
    return _guarded(f"{PROGRAM} {stage.name}", lambda: _run(stage, rest))


def actions(group: str) -> list[str]:
    """Second words of the stages whose first word is `group`; none: it is no group."""
    return [name.split()[1] for name in STAGES if name.startswith(f"{group} ")]


def find_stage(arguments: Sequence[str]) -> tuple[Stage, list[str]]:
    """The stage that one or two words at the start of `arguments` name, and what follows them.

    Raises:
        ConfigError: there is no such stage, or no such action of a group.
    """
    first, *others = arguments
    known = actions(first)
    words = [first, *others[:1]] if known else [first]
    if " ".join(words) in STAGES:
        return STAGES[" ".join(words)], list(arguments[len(words) :])
    if known:
        raise ConfigError(_unknown("action", words[-1], known, f"{PROGRAM} {first}"))
    names = list(dict.fromkeys(name.split()[0] for name in STAGES))
    raise ConfigError(_unknown("stage", first, names, PROGRAM))


def _run(stage: Stage, arguments: list[str]) -> None:
    if any(argument in HELP for argument in arguments):
        # A config that is named beside --help is shown with its own values.
        config = load_config(stage, arguments) if stage.config else None
        print(cli_help.stage_help(PROGRAM, stage, config), flush=True)
        return
    keywords = parse(stage, arguments)
    started = time.monotonic()
    stage.call(**keywords)
    print(f"{PROGRAM} {stage.name}: done in {time.monotonic() - started:.1f} s", flush=True)


def _guarded(command: str, run: Callable[[], None]) -> int:
    """Runs, and turns any exception into its exit reason as the last line and its exit code."""
    try:
        run()
        return 0
    except Preempted as error:
        _complain(command, "preempted", str(error))
        return error.exit_code
    except ClueError as error:
        _complain(command, "error", str(error))
        return error.exit_code
    except KeyboardInterrupt:
        _complain(command, "interrupted", "the same command again continues where it can")
        return EXIT_INTERRUPTED
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _output_is_closed():
            return ClueError.exit_code
        traceback.print_exc()
        _complain(command, "error", f"unexpected {type(error).__name__}: {error}")
        return ClueError.exit_code


def _output_is_closed() -> bool:
    """Whether who read our output has gone (`| head`), so that nothing is left to be told."""
    try:
        output = sys.stdout.fileno()
    except (OSError, ValueError):  # not a file of the system's
        return False
    poll = select.poll()
    poll.register(output, 0)  # errors are reported whatever one asks for
    if not any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
        return False
    # Else the interpreter writes once more when it ends, and complains.
    os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    return True


def _complain(command: str, kind: str, message: str) -> None:
    sys.stdout.flush()
    label = f"{command}: {kind}:"
    if sys.stderr.isatty() and "NO_COLOR" not in os.environ:
        label = f"\x1b[1;31m{label}\x1b[0m"
    print(f"{label} {message}", file=sys.stderr, flush=True)


def _unknown(what: str, name: str, known: list[str], command: str) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f" did you mean {close[0]!r}?" if close else ""
    return f"no {what} {name!r};{hint} {what}s: {', '.join(known)} (see {command} --help)"


# ----------------------------------------------------------------------------------------- parsing


def parse(stage: Stage, arguments: Sequence[str]) -> dict[str, Any]:
    """The keyword arguments of the stage's function, from its flags.

    Raises:
        ConfigError: a flag or config key is missing, unknown or of the wrong type.
    """
    values = flags.FlagValues()
    for flag in stage.flags:
        _define(flag, values)
    try:
        arguments = values.read_flags_from_files(list(arguments), force_gnu=True)
        if stage.config:
            arguments = _define_config(stage, stage.config, arguments, values)
        _, *rest = values([PROGRAM, *arguments])
    except flags.Error as error:
        raise ConfigError(" ".join(str(error).split())) from error
    keywords = {flag.name: getattr(values, flag.name) for flag in stage.flags}
    optional = {flag.name for flag in stage.flags if flag.optional or flag.kind is bool}
    for name, value in keywords.items():
        given = all(value) if isinstance(value, list) else True  # one for each time
        if not (value and given) and name not in optional:
            raise ConfigError(f"--{name} is missing; see {PROGRAM} {stage.name} --help")
    if stage.config:
        # Flags do not check what is inside a tuple; the way through JSON does.
        keywords["config"] = from_json(stage.config, to_json(values.config))
    return keywords | _positional(stage, rest)


def _define(flag: Flag, values: flags.FlagValues) -> None:
    if flag.many:
        flags.DEFINE_multi_string(flag.name, [], flag.help, flag_values=values)
    elif flag.kind is int:
        flags.DEFINE_integer(flag.name, flag.default or None, flag.help, 1, flag_values=values)
    elif flag.kind is float:
        flags.DEFINE_float(flag.name, flag.default or None, flag.help, flag_values=values)
    elif flag.kind is bool:
        flags.DEFINE_boolean(flag.name, False, flag.help, flag_values=values)
    else:
        flags.DEFINE_string(flag.name, flag.default, flag.help, flag_values=values)


def _define_config(
    stage: Stage, kind: type[Any], arguments: Sequence[str], values: flags.FlagValues
) -> list[str]:
    """Reads --config, defines a flag for each override of it; gives the arguments left to parse.

    The file is read here and not by DEFINE_config_file: that uses `load_module`, which Python 3.15
    no longer has, and reports errors of the file as its own.
    """
    path, others = cli_config.split_config(arguments, stage.default_config)
    if not path:
        raise ConfigError(f"--config is missing; see {PROGRAM} {stage.name} --help")
    config = cli_config.read_config(path, kind)
    overrides = cli_config.checked_overrides(config, others)
    config_flags.DEFINE_config_dataclass(
        "config", config, flag_values=values, sys_argv=[PROGRAM, *overrides]
    )
    return overrides


def load_config(stage: Stage, arguments: Sequence[str]) -> Any:
    """The stage's config, with overrides where `arguments` name a file, else its defaults."""
    assert stage.config is not None
    path, others = cli_config.split_config(arguments, stage.default_config)
    if not path:
        return stage.config()
    overrides = [a for a in others if a.startswith(("--config.", "-config.", "--noconfig."))]
    only_config = Stage(stage.name, "", stage.call, (), stage.config)
    return parse(only_config, [f"--config={path}", *overrides])["config"]


def _positional(stage: Stage, rest: Sequence[str]) -> dict[str, str]:
    if len(rest) == len(stage.positional):
        return dict(zip(stage.positional, rest, strict=True))
    if stage.positional:
        wanted = " and ".join(f"one {name}" for name in stage.positional)
        raise ConfigError(f"give {wanted}: {PROGRAM} {stage.example}")
    raise ConfigError(f"{rest[0]!r} is no flag; flags are written --name=value")
