"""`python -m clue_jax STAGE ...`, the same as `clue-jax STAGE ...`."""

import sys

from clue_jax.cli import main

if __name__ == "__main__":
    sys.exit(main())
