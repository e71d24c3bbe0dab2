"""What names people is replaced in texts, what only looks like it stays, and all is counted."""

import json

import pyarrow as pa
import pytest

from clue_jax.config import (
    PrepareConfig,
    ScrubConfig,
    ScrubPattern,
    SourceConfig,
    SplitConfig,
    TokenizerConfig,
)
from clue_jax.data.prepare import prepare
from clue_jax.data.scrubbing import Scrubber
from clue_jax.errors import ConfigError

ALL = ScrubConfig(emails=True, phones=True, cards=True)


def scrubbed(text, config=ALL):
    texts, _ = Scrubber(config)(pa.array([text], pa.large_string()))
    return texts.to_pylist()[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("write to ann.lee+news@mail.example.org today", "write to [email] today"),
        ("JÖRG@müller.de", "[email]"),
        ("a@b.co,c@d.co", "[email],[email]"),
        ("card 4111 1111 1111 1111 please", "card [card] please"),
        ("5500-0000-0000-0004", "[card]"),
        ("378282246310005", "[card]"),
        ("call +49 30 901820 now", "call [phone] now"),
        ("+1 (555) 123-4567", "[phone]"),
        ("0044 20 7946 0958", "[phone]"),
        ("(555) 123-4567 or 555-123-4567", "[phone] or [phone]"),
        ("tel 030 / 90 18 20", "tel 030 / 90 18 20"),
        ("tel 030/901820", "tel [phone]"),
    ],
)
def test_what_is_replaced(text, expected):
    assert scrubbed(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "4111 1111 1111 1112",  # no card: its check digit is wrong
        "article 0123456789012345678901",  # longer than any card
        "isbn 978-3-16-148410-0",
        "size 10-12 cm, 3 x 250 ml, 1999-2005",
        "sku 0805200112",
        "twitter @name, 5 @ 2.50",
        "2024-01-31 12:30:00",
        "",
    ],
)
def test_what_only_looks_like_it_stays(text):
    assert scrubbed(text) == text


def test_only_what_is_asked_for_is_replaced():
    text = "a@b.co 4111111111111111 +49 30 901820"
    assert scrubbed(text, ScrubConfig()) == text
    assert scrubbed(text, ScrubConfig(cards=True)) == "a@b.co [card] +49 30 901820"


def test_own_patterns_are_replaced_by_their_names():
    patterns = (ScrubPattern("order\\1", r"(?i)order \d+"), ScrubPattern("vip", "VIP"))
    config = ScrubConfig(patterns=patterns)
    assert scrubbed("Order 12 of a VIP", config) == "[order\\1] of a [vip]"
    with pytest.raises(ConfigError, match="scrub.patterns: 'x' is not a regular expression"):
        Scrubber(ScrubConfig(patterns=(ScrubPattern("x", "(("),)))


def test_changed_texts_are_known_by_rule():
    texts = pa.array(["a@b.co", None, "plain", "a@b.co +49 30 901820"], pa.large_string())
    after, changed = Scrubber(ALL)(texts)
    assert after.to_pylist() == ["[email]", None, "plain", "[email] [phone]"]
    assert {name: where.tolist() for name, where in changed.items()} == {
        "e-mail address": [True, False, False, True],
        "phone number": [False, False, False, True],
    }


SECRETS = ("ann.lee@mail.example", "4111111111111111", "+49 30 901820", "XK-4711")


@pytest.mark.parametrize("scrub", [True, False])
def test_planted_texts_are_in_no_file_of_a_dataset(tmp_path, scrub):
    rows = [
        {"user_id": f"u{n % 20}", "timestamp": f"2024-01-{n % 28 + 1:02}", "text": f"thing {n % 7}"}
        for n in range(200)
    ]
    for n, secret in enumerate(SECRETS * 2):
        rows[11 * n]["text"] = f"bought by {secret} again"
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = PrepareConfig(
        source=str(tmp_path / "logs"),
        sources=(SourceConfig(path="a.jsonl", service="shop"),),
        split=SplitConfig(validation=0.2, test=0.2),
        tokenizer=TokenizerConfig(vocab_size=400),
    )
    if scrub:
        patterns = (ScrubPattern("contract", r"\bXK-\d+\b"),)
        config.scrub = ScrubConfig(emails=True, phones=True, cards=True, patterns=patterns)
    prepare(config, str(tmp_path / "out"))
    contents = b"".join(p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file())
    # The control: without scrubbing each of them is there, in plain letters.
    assert {secret.encode() in contents for secret in SECRETS} == {not scrub}
    replaced = json.loads((tmp_path / "out" / "manifest.json").read_text())["replaced"]
    names = ("card number", "contract", "e-mail address", "phone number")
    assert replaced == ({f"text: {name}": 2 for name in names} if scrub else {})
