"""Changes copies of an export or a dataset and kills itself at the 1st, 2nd ... file operation.

Usage: killed_change.py EXPORT FOLDER [IDS], with ids to be erased separated by commas; without any
the export is given an index. It leaves FOLDER/N/export for every N up to the first that was not
killed. Each copy has a process of its own, forked before any thread exists.
"""

import os
import shutil
import signal
import sys
import traceback

EVENTS = {"open", "os.rename", "os.link", "os.remove", "os.rmdir", "os.mkdir"}


def kill_at(number, folder):
    seen = 0

    def hook(event, arguments):
        nonlocal seen
        if event in EVENTS and str(arguments[0]).startswith(folder):
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def change_of(export, ids):
    """What is done to a copy; modules are loaded once and not in each process."""
    if os.path.exists(os.path.join(export, "tokenizer.json")):
        from clue_jax.data.erase import erase as erase_from_data

        return lambda copy: erase_from_data(copy, ids.split(","))
    import usearch.index  # noqa: F401

    from clue_jax.embeddings.erase import erase
    from clue_jax.embeddings.index import IndexSettings
    from clue_jax.embeddings.index_build import build_index

    if ids:
        return lambda copy: erase(copy, ids.split(","))
    return lambda copy: build_index(copy, IndexSettings())


def main(export, folder, ids=""):
    change = change_of(export, ids)
    for number in range(1, 400):
        copy = os.path.join(folder, str(number), "export")
        shutil.copytree(export, copy)
        child = os.fork()
        if not child:
            try:
                kill_at(number, os.path.dirname(copy))
                change(copy)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        status = os.waitpid(child, 0)[1]
        if not os.WIFSIGNALED(status):
            return os.waitstatus_to_exitcode(status)
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
