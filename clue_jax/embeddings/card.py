"""The card of an export: what a person should know of it, made from its manifest alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from clue_jax.embeddings.layout import ORDER, SHARDING

_HEAD = """\
# {title}

{rows:,} {what} of {width} dimensions, made by clue_jax (format {schema_version}).

| | |
|---|---|
| model | `{model_version}`: checkpoint of step {step}, fingerprint `{checkpoint}` |
| dataset | fingerprint `{dataset}` |
| services | {services} |
| splits | {splits} |
| not seen by the encoder | {unseen} |
| vectors | {width} dimensions, {precision}, length one |
| pooling | {pooling} |
| parts | {parts} files, {size:,} bytes; {sharding} |
| order in a part | {order} |
"""

_READ = """
## How to read it

Each part is plain Parquet. Point readers at `model_version=*/`, and check a copy first with
`clue-jax embeddings verify DIR`.

```sql
SELECT {key}, embedding FROM 'DIR/model_version=*/*.parquet';  -- DuckDB
```

```python
import pandas, polars

frame = polars.read_parquet("DIR/model_version=*/*.parquet")
frame = pandas.read_parquet("DIR/model_version={model_version}")
```
{decode}
"""

_DECODE = {
    "float32": "",
    "float16": """
Vectors are binaries of little-endian float16: `numpy.frombuffer(value, "<f2")`.
""",
    "int8": """
Vectors are binaries of int8, multiples of the column of the same name with `_scale`:
`scale * numpy.frombuffer(value, "int8")`.
""",
}

_LIMITS = """
## Limits and privacy

- Vectors of two model versions lie in different spaces: never compare them before
  `clue-jax embeddings align`.
- To predict something later, an embedding must not have seen it: see `not seen` above.
- {personal}
"""
_PERSONAL = {
    "users": "Embeddings of people are personal data, ids or no ids: from one, interests and"
    " habits can be told. Keep them like the logs; `clue-jax embeddings erase DIR --ids=FILE`"
    " removes users from this export, not from copies, the dataset or the model.",
    "items": "Items are no people, but rare texts may be: look before you share.",
}


def card_of(manifest: dict[str, Any]) -> str:
    """Markdown of the card; needs no more of the manifest than what, width, rows and parts."""
    what, width = manifest["what"], manifest["embedding_width"]
    version = manifest.get("model_version", "unknown")
    precision = manifest.get("precision", "float32")
    checkpoint, dataset = manifest.get("checkpoint", {}), manifest.get("dataset", {})
    facts = {
        "title": f"Embeddings of {what}",
        "what": what,
        "rows": manifest["rows"],
        "width": width,
        "schema_version": manifest["schema_version"],
        "model_version": version,
        "step": checkpoint.get("step", "unknown"),
        "checkpoint": checkpoint.get("fingerprint", "unknown")[:12],
        "dataset": dataset.get("fingerprint", "unknown")[:12],
        "services": ", ".join(dataset.get("services", ())) or "unknown",
        "splits": ", ".join(manifest.get("splits", ())) or "all",
        "unseen": _unseen(manifest),
        "precision": precision,
        "pooling": manifest.get("pooling", "unknown"),
        "parts": len(manifest["parts"]),
        "size": sum(part["bytes"] for part in manifest["parts"]),
        "sharding": manifest.get("sharding", "dealt in order"),
        "order": ORDER[what] if manifest.get("sharding") == SHARDING[what] else "as given",
    }
    read = _READ.format(
        key="user_id" if what == "users" else "item_id",
        model_version=version,
        decode=_DECODE[precision],
    )
    limits = _LIMITS.format(personal=_PERSONAL[what])
    return _HEAD.format(**facts) + _statistics(manifest) + read.rstrip() + "\n" + limits


def _unseen(manifest: dict[str, Any]) -> str:
    unseen = []
    if manifest.get("cutoff"):
        unseen.append(f"behaviours from {manifest['cutoff']} on")
    if manifest.get("hold_out_last"):
        unseen.append(f"the last {manifest['hold_out_last']} of each service")
    if manifest.get("start"):
        unseen.append(f"behaviours before {manifest['start']}")
    if manifest.get("newest"):
        unseen.append(f"all but the newest {manifest['newest']} of each service")
    if manifest.get("users_left_out"):
        unseen.append(f"{manifest['users_left_out']:,} users without a visible behaviour")
    if manifest.get("users_erased"):
        unseen.append(f"{manifest['users_erased']:,} users were erased")
    return "; ".join(unseen) or "nothing was held back"


def _statistics(manifest: dict[str, Any]) -> str:
    found = {name: np.array(values) for name, values in manifest["statistics"].items()}
    if not found:
        return "\n## Statistics\n\nThere are no rows.\n"
    least, most = manifest["norms"]
    spread = found["std"]
    return (
        "\n## Statistics\n\n"
        f"Lengths {least:.6f} to {most:.6f}. Of a dimension: mean {found['mean'].min():+.4f} to"
        f" {found['mean'].max():+.4f}, standard deviation {spread.min():.4f} to"
        f" {spread.max():.4f} ({1 / np.sqrt(len(spread)):.4f} where spread evenly), values"
        f" {found['min'].min():+.4f} to {found['max'].max():+.4f}. Each dimension is in"
        " `statistics` of manifest.json.\n"
    )
