"""Errors a person can act on, each with the exit code its stage ends with.

Every message says what was wrong, where (file, row, column, key, parameter) and what to do.
"""

EXIT_DONE = 0
EXIT_PREEMPTED = 75  # EX_TEMPFAIL: saved, run the same command again
EXIT_INTERRUPTED = 130  # as shells number SIGINT


class ClueError(Exception):
    """Base of every error this package raises on purpose."""

    exit_code = 1


class ConfigError(ClueError):
    """A flag, config key or combination of settings that cannot work."""

    exit_code = 2


class DataError(ClueError):
    """Input logs, a prepared dataset or an export that is malformed or damaged."""

    exit_code = 3


class CheckpointError(ClueError):
    """No usable checkpoint, or one that does not match the run."""

    exit_code = 4


class StorageError(ClueError):
    """The file system refused: full, read-only, missing, or an output already there."""

    exit_code = 5


class NonFiniteError(ClueError):
    """A NaN or infinity where none may be, or a diverged run."""

    exit_code = 6


class LostPeerError(ClueError):
    """A hang, or a process of the same job that is gone."""

    exit_code = 7


class LockedError(ClueError):
    """Another live process is writing to the same place."""

    exit_code = 8


class Preempted(ClueError):
    """Stopped by a signal after saving; the same command continues."""

    exit_code = EXIT_PREEMPTED


def exit_code_of(error: BaseException) -> int:
    """The code a stage ends with that this error has stopped."""
    if isinstance(error, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    return error.exit_code if isinstance(error, ClueError) else ClueError.exit_code


def kind_of(exit_code: int) -> type[ClueError]:
    """The class whose exit code it is."""
    kinds = {kind.exit_code: kind for kind in ClueError.__subclasses__()}
    return kinds.get(exit_code, ClueError)
