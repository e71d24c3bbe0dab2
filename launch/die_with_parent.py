"""Becomes the program in its arguments, which is told to stop when the launcher is gone.

Run as a script between the launcher and its processes: the kernel sends SIGTERM, on which a stage
saves and stops, also when the launcher was killed outright. Where there is no such call it only
becomes the program.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    parent, *argv = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != int(parent):  # gone before the call
            sys.exit(128 + signal.SIGTERM)
    os.execvp(argv[0], argv)
