"""Logs to histories with pandas: all parts in memory, sorted by time, grouped into lists.

    python tests/benchmarks/peers/pandas_groupby.py LOGS

No row is checked, no item identified and nothing written.
"""

import json
import os
import resource
import sys
import time

import pandas as pd


def main() -> None:
    started, busy = time.perf_counter(), sum(os.times()[:2])
    table = pd.read_parquet(sys.argv[1], columns=["user_id", "timestamp", "service", "title"])
    table = table.sort_values("timestamp", kind="stable")
    groups = table.groupby(["user_id", "service"], observed=True)[["timestamp", "title"]].agg(list)
    seconds, busy = time.perf_counter() - started, sum(os.times()[:2]) - busy
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    printed = {"per_second": len(table) / seconds, "histories": len(groups), "peak_mb": peak}
    print(json.dumps(printed | {"cpu_seconds_a_million": busy / len(table) * 1e6}))


if __name__ == "__main__":
    main()
