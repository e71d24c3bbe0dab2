"""The card of a dataset says what the manifest knows, and nothing of anybody."""

import json

from clue_jax.data.card import card_of
from tests.faults.logs import prepare, write

SECRET = "secret-key-of-the-card-0123456789"


def test_the_card_says_what_was_done(tmp_path, monkeypatch):
    monkeypatch.setenv("CARD_KEY", SECRET)
    rows = [
        (f"person-{user}", 1_600_000_000 + n, f"planted word{user}x{n} a@example.org")
        for user in range(60)
        for n in range(4)
    ]
    rows.append(("person-bad", "no time", "planted"))
    write(tmp_path / "logs" / "shop.csv", rows)
    write(tmp_path / "logs" / "news.csv", rows[:-1])
    (tmp_path / "forget.txt").write_text("person-1\nperson-2\n")
    prepare(
        tmp_path / "logs",
        tmp_path / "data",
        "--config.pseudonym.key_env=CARD_KEY",
        "--config.scrub.emails=true",
        "--config.max_bad_rows=1",
        f"--config.suppress={tmp_path}/forget.txt",
        sources=(("shop*", "shop"), ("news*", "news")),
    )
    card = (tmp_path / "data" / "card.md").read_text()
    manifest = json.loads((tmp_path / "data" / "manifest.json").read_text())
    assert card == card_of(manifest)
    assert manifest["splits"]["train"]["users"] == 58
    for said in (
        f"| user ids | pseudonyms by key `{manifest['pseudonym_key_id']}` |",
        "| replaced in texts | emails |",
        "| ids on the list of people left out | 2 |",
        "| train | 58 | 232 | 232 |",
        "| rejected: ",
        "not for deciding on credit",
    ):
        assert said in card
    for kept_out in ("person-", "planted", "word1", "example.org", SECRET, str(tmp_path)):
        assert kept_out not in card


def test_a_card_without_any_of_that(smoke_data):
    card = (smoke_data / "card.md").read_text()
    for said in ("**as the logs have them**", "| nothing | 0 |", "| no list |", "of all times"):
        assert said in card
    manifest = json.loads((smoke_data / "manifest.json").read_text())
    manifest["services"] = [*manifest["services"][:-1], "a|b\nc"]
    for split in manifest["splits"].values():
        split["behaviours"]["a|b\nc"] = 7
    lines = card_of(manifest).splitlines()
    assert any("| on a\\|b c |" in line for line in lines)
