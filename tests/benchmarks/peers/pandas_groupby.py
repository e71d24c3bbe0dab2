"""Logs to histories with pandas: all parts in memory, sorted by time, grouped into lists.

    python tests/benchmarks/peers/pandas_groupby.py LOGS

No row is checked, no item identified and nothing written.
"""

import json
import resource
import sys
import time

import pandas as pd


def main() -> None:
    started = time.perf_counter()
    table = pd.read_parquet(sys.argv[1], columns=["user_id", "timestamp", "service", "title"])
    table = table.sort_values("timestamp", kind="stable")
    groups = table.groupby(["user_id", "service"], observed=True)[["timestamp", "title"]].agg(list)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        json.dumps({"per_second": len(table) / seconds, "histories": len(groups), "peak_mb": peak})
    )


if __name__ == "__main__":
    main()
