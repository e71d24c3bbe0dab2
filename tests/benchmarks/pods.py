"""What the TPU compiler says of the shipped pod configurations: docs/results/pods/NAME.json.

    python tests/benchmarks/pods.py [--only=160M_v5e_256] [--record]

with the extra `tpu`, in an environment of its own; one to three minutes for each program. Prints a
line of JSON for each; the largest that any device takes of its memory is the peer of the rest.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import jax

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.benchmarks import harness  # noqa: E402

RESULTS = ROOT / "docs" / "results" / "pods"
PODS = {
    "v5e_256": ("--topology=v5e:16x16",),
    "v5p_512": ("--topology=v5p:8x8x8",),
    "v6e_256x2": ("--topology=v6e:16x16", "--slices=2"),
    "tpu7x_128": ("--topology=tpu7x:4x4x4",),
}
LOSSES = {65_536: ("GATHER", "RING"), 1_048_576: ("GATHER", "RING")}


def programs() -> dict[str, list[str]]:
    """Name -> arguments of `compile`."""
    found = {}
    for pod, where in PODS.items():
        for size in ("160M", "725M"):
            found[f"{size}_{pod}"] = [f"--config=configs/pods.py:{size}_{pod}", *where]
        for users, transports in LOSSES.items():
            for transport in transports:
                found[f"loss_{users}_{transport.lower()}_{pod}"] = [
                    f"--config=configs/pods.py:160M_{pod}",
                    *where,
                    "--only=loss",
                    f"--config.train.batch_users={users}",
                    f"--config.loss.transport={transport}",
                ]
    tensor = ["--config.mesh.data=8", "--config.mesh.fsdp=8", "--config.mesh.tensor=4"]
    found["725M_tensor_v5e_256"] = [*found["725M_v5e_256"], *tensor]
    return found


def compiled(arguments: list[str]) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "figures.json"
        command = [sys.executable, "-m", "clue_jax", "compile", *arguments, f"--out={out}"]
        subprocess.run(command, cwd=ROOT, check=True, stdout=sys.stderr)
        return json.loads(out.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="names that contain this")
    parser.add_argument("--record", action="store_true", help="write docs/results/pods/NAME.json")
    options = parser.parse_args()
    for name, arguments in programs().items():
        if options.only not in name:
            continue
        figures = {
            "command": " ".join(["clue-jax compile", *arguments]),
            "revision": harness.revision(),
            "date": datetime.date.today().isoformat(),
            "jax": jax.__version__,
            **compiled(arguments),
        }
        memory = figures["memory"]
        line = {"benchmark": "pods", "metric": name, "ours": memory["total"]}
        line |= {"peer": memory["usable"], "peer_name": "bytes the compiler allows a device"}
        print(json.dumps(line | {"ratio": memory["total"] / memory["usable"]}), flush=True)
        if options.record:
            RESULTS.mkdir(parents=True, exist_ok=True)
            (RESULTS / f"{name}.json").write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
