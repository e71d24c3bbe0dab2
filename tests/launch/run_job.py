"""A launcher of a job whose processes run the source in the first argument, each with another."""

import sys

from launch.local import Planned, run

if __name__ == "__main__":
    source, *others = sys.argv[1:]
    sys.exit(run([Planned((sys.executable, "-c", source, other), {}) for other in others]))
