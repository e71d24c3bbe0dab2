"""`prepare` stays within its memory however large the logs are, by the kernel's account."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks import synthetic_log

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="the kernel does not say the peak there"
)
ROOT = Path(__file__).parents[2]
USERS, ITEMS = 5_000, 60_000
# Runs alone, so that its peak is that of the stage.
PROGRAM = """
import re, resource, sys
from clue_jax.config import PrepareConfig, SourceConfig, TokenizerConfig
from clue_jax.data import grouping
from clue_jax.data.prepare import prepare

grouping._RANGE_ROWS = 1 << 40  # what there is room for is done in one piece
(logs, out), (memory_mb, processes) = sys.argv[1:3], map(int, sys.argv[3:])
source = SourceConfig(
    path="*.parquet", service_column="service", item_id="item_id", text="{title}"
)
tokenizer = TokenizerConfig(vocab_size=600, max_training_texts=2_000)
prepare(
    PrepareConfig(
        source=logs,
        sources=(source,),
        tokenizer=tokenizer,
        memory_mb=memory_mb,
        processes=processes,
    ),
    out,
)
# Of this program alone: ru_maxrss starts with what the parent had when it forked.
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
if processes > 1:  # as if all had the largest one's at once
    peak += processes * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(peak / 1024)
"""


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """Folders of logs by behaviours and the share of one user, each made once."""
    made = {}

    def make(rows, giant=0.0):
        if (rows, giant) not in made:
            out = tmp_path_factory.mktemp("logs") / "x"
            options = [f"--rows={rows}", f"--users={USERS}", f"--items={ITEMS}", f"--out={out}"]
            options.append(f"--giant={giant}")
            synthetic_log.write(synthetic_log.arguments().parse_args(options))
            made[rows, giant] = out
        return made[rows, giant]

    return make


def peak_mb(logs, out, memory_mb, processes=1):
    """Peak resident memory of the processes that prepare `logs`, in MB; and the manifest."""
    argv = [sys.executable, "-c", PROGRAM, *map(str, (logs, out, memory_mb, processes))]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((out / "manifest.json").read_text())
    return float(done.stdout.splitlines()[-1]), manifest


def test_the_peak_does_not_grow_with_the_logs(tmp_path, logs):
    small, _ = peak_mb(logs(400_000), tmp_path / "small", 512)
    large, bounded = peak_mb(logs(1_600_000), tmp_path / "large", 512)
    # The control: the same logs in one piece, as there is room for it.
    roomy, free = peak_mb(logs(1_600_000), tmp_path / "roomy", 16_384)
    shared, together = peak_mb(logs(1_600_000), tmp_path / "shared", 1_088, processes=2)
    print(f"{small:.0f} MB, of four times the rows {large:.0f} MB, in one piece {roomy:.0f} MB")
    print(f"of three processes {shared:.0f} MB")
    assert large < 512
    assert roomy - small > 120
    assert large - small < (roomy - small) / 2
    assert shared < 1_088
    assert bounded["fingerprint"] == free["fingerprint"] == together["fingerprint"]


def test_one_user_of_half_the_logs(tmp_path, logs):
    peak, bounded = peak_mb(logs(500_000, 0.7), tmp_path / "bounded", 512)
    roomy, free = peak_mb(logs(500_000, 0.7), tmp_path / "roomy", 16_384)
    print(f"{peak:.0f} MB, in one piece {roomy:.0f} MB")
    assert peak < 512
    assert bounded["fingerprint"] == free["fingerprint"]
    for account in ("dropped", "duplicates", "quantiles"):
        assert bounded[account] == free[account]
    assert bounded["dropped"]["behaviours beyond max_history"] > 300_000
