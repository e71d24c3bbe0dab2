"""One of two processes of a job, which agree or do not; prints what each came to."""

import jax

from clue_jax.errors import ClueError, StorageError
from clue_jax.parallel.agreement import check_agreed, first_alone, first_decides, together
from clue_jax.parallel.processes import join_processes


def outcome(name, action):
    try:
        print(f"{name}: {action()}", flush=True)
    except ClueError as error:
        print(f"{name}: {type(error).__name__}: {error}", flush=True)


def main():
    join_processes()
    own = jax.process_index()

    def full_in_the_second():
        if own == 1:
            raise StorageError("disk full")
        return "written"

    outcome("all well", lambda: together(lambda: own))
    outcome("one fails", lambda: together(full_in_the_second))
    outcome("first alone", lambda: first_alone(full_in_the_second))
    outcome("decides", lambda: first_decides(own == 0))
    outcome("same", lambda: check_agreed({"seed": 3, "jax": "0.1"}))
    outcome("other", lambda: check_agreed({"seed": 3, "jax": f"0.{own}"}))


if __name__ == "__main__":
    main()
