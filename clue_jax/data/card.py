"""The card of a prepared dataset: what a person should know of it, made from its manifest alone.

No ids, texts, paths or dates: equal logs and settings give equal bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clue_jax.data.manifest import may_show_texts
from clue_jax.markdown import one_line, table

_USE = """
## What it is for, and what not

Training and evaluating encoders of users, and embedding the same users with them. Not for linking
people across services that they did not agree to be linked across, not for finding a named person
by their behaviour, and not for deciding on credit, insurance, work or housing.

- Behaviour is personal data, ids or no ids: what somebody searched and bought may name them. Keep
  this folder like the logs, and hand it on only to who may have these.
- Scrubbing finds what is written in common ways, not names or addresses.
- Who asks to be forgotten: `clue-jax erase`, and their ids on the list of `--config.suppress` when
  it is prepared again. A model that was trained on this dataset keeps what it has learnt.
- Users of few behaviours and of one service alone are here as the logs have them: results for all
  users together hide how these fare.
"""


def card_of(manifest: Mapping[str, Any]) -> str:
    """Markdown of the card."""
    items, quantiles = manifest["items"], manifest["quantiles"]
    facts = {
        "fingerprint": f"`{manifest['fingerprint'][:12]}`",
        "services": ", ".join(map(one_line, manifest["services"])),
        "distinct items": f"{items['count']:,}",
        "tokens of an item": _spread(quantiles["item_tokens"]),
        "items with more tokens than are kept": f"{manifest['truncated_items']:,}, cut to"
        f" {manifest['max_item_tokens']}",
        "tokenizer": f"byte-level BPE of {manifest['vocab_size']:,} tokens,"
        f" `{manifest['tokenizer_sha256'][:12]}`",
        "times": "dates" if manifest["has_times"] else "an order alone",
        "repeated behaviours": f"{manifest['duplicates']:,}",
    }
    return "".join(
        (
            f"# Dataset {one_line(manifest['name'])}\n\nBehaviours of users on services, as text;"
            " prepared by clue_jax. Each user is in one split.\n\n",
            table(("", ""), facts.items()),
            "\n## Users and behaviours\n\n",
            _splits(manifest),
            "\n## What was left out or changed\n\n",
            table(("", "rows, texts or users"), _changes(manifest)),
            "\n## Privacy and retention\n\n",
            table(("", ""), _privacy(manifest)),
            _USE,
        )
    )


def _splits(manifest: Mapping[str, Any]) -> str:
    services = manifest["services"]
    rows = [
        (split, f"{of['users']:,}", *(f"{of['behaviours'][s]:,}" for s in services))
        for split, of in sorted(manifest["splits"].items())
    ]
    spreads = [_spread(manifest["quantiles"]["behaviours"].get(s)) for s in services]
    rows.append(("behaviours of a user", "", *spreads))
    return table(("split", "users", *(f"on {one_line(s)}" for s in services)), rows)


def _changes(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = [
        (f"{title}: {one_line(reason)}", f"{count:,}")
        for title, key in (
            ("rejected", "rejects"),
            ("filtered", "filtered"),
            ("replaced in texts", "replaced"),
            ("dropped", "dropped"),
        )
        for reason, count in sorted(manifest[key].items())
    ]
    return found or [("nothing", "0")]


def _privacy(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    config = manifest["config"]
    key, scrub = manifest["pseudonym_key_id"], config["scrub"]
    # Keys that are newer than some datasets.
    suppressed, retention = manifest.get("suppressed"), manifest.get("retention")
    shared = config.get("min_item_users", 1)
    kinds = [name for name in ("emails", "phones", "cards") if scrub[name]]
    kinds += [one_line(pattern["name"]) for pattern in scrub["patterns"]]
    start = retention["start"] if retention else config["start"]
    window = [f"from {start}" if start else ""]
    window.append(f"before {config['end']}" if config["end"] else "")
    left_out = f"{suppressed['ids']:,}" if suppressed else "no list"
    least = f"{config['min_behaviours']} in all, {config['min_service_behaviours']} in a service"
    return [
        ("user ids", f"pseudonyms by key `{key}`" if key else "**as the logs have them**"),
        ("replaced in texts", ", ".join(kinds) or "nothing"),
        ("ids on the list of people left out", left_out),
        ("behaviours kept", " ".join(filter(None, window)) or "of all times"),
        ("newest behaviours kept of a user and service", f"{config['max_history']:,}"),
        ("behaviours that a user must have", least),
        ("kept for", f"{retention['days']:,} days; exports enforce it" if retention else "ever"),
        ("users that a text must have", f"{shared:,}"),
        (
            "texts of people may be shown",
            "yes, to those who ask" if may_show_texts(manifest) else "**no**: `report` refuses to",
        ),
        ("users erased since", f"{manifest.get('users_erased', 0):,}"),
    ]


def _spread(quantiles: Mapping[str, int] | None) -> str:
    if not quantiles:
        return "-"
    return f"median {quantiles['p50']:,}, 99 % {quantiles['p99']:,}, most {quantiles['max']:,}"
