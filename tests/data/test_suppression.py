"""People on a suppression list leave no trace in a dataset; all others stay as they are."""

import json

import pytest

from clue_jax.config import (
    PrepareConfig,
    PseudonymConfig,
    SourceConfig,
    SplitConfig,
    TokenizerConfig,
)
from clue_jax.data.prepare import Built, prepare
from clue_jax.data.source import open_dataset
from clue_jax.errors import ConfigError, DataError

USERS = 20
# As one table has them: an id that was kept as a float once, and one with spaces around it.
LISTED = ("1007", "1011")
OWN_WORDS = "harpsichord"


@pytest.fixture
def config(tmp_path):
    (tmp_path / "logs").mkdir()
    rows = [
        {
            "user_id": f"{1_000 + n % USERS}.0",
            "timestamp": f"2024-01-{n % 28 + 1:02}",
            "text": f"{OWN_WORDS} {n}" if n % USERS == 7 else f"thing {n % 7}",
        }
        for n in range(200)
    ]
    # A row that would be rejected, and shown as a reject.
    rows[7]["timestamp"] = "no time at all"
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "logs" / "a.jsonl").write_text(lines)
    (tmp_path / "list.txt").write_text("".join(f" {user}\n" for user in LISTED))
    return PrepareConfig(
        source=str(tmp_path / "logs"),
        sources=(SourceConfig(path="a.jsonl", service="shop"),),
        split=SplitConfig(validation=0.2, test=0.2),
        tokenizer=TokenizerConfig(vocab_size=400),
        max_bad_rows=5,
    )


def prepared(config, out):
    prepare(config, str(out))
    manifest = json.loads((out / "manifest.json").read_text())
    dataset = open_dataset(out)
    users = {i for split in manifest["splits"] for i in dataset.users(split).user_ids.tolist()}
    contents = b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
    return manifest, users, contents


def test_listed_people_are_in_no_file_of_the_dataset(config, tmp_path):
    # The control: without a list they are all there, the reject too.
    before, everyone, contents = prepared(config, tmp_path / "before")
    assert len(everyone) == USERS and before["rejects"] and before["suppressed"] is None
    assert OWN_WORDS.encode() in contents
    config.suppress = str(tmp_path / "list.txt")
    after, users, contents = prepared(config, tmp_path / "after")
    assert users == everyone - set(LISTED)
    assert after["filtered"] == {"shop: user on the suppression list": 20}
    assert not after["rejects"] and after["suppressed"]["ids"] == 2
    assert not [word for word in (*LISTED, OWN_WORDS) if word.encode() in contents]
    assert after["fingerprint"] != before["fingerprint"]


def test_the_list_has_ids_of_the_logs_also_where_the_dataset_has_pseudonyms(config, tmp_path):
    (tmp_path / "key").write_text("0123456789abcdef" * 2)
    config.pseudonym = PseudonymConfig(key_file=str(tmp_path / "key"))
    everyone = prepared(config, tmp_path / "before")[1]
    config.suppress = str(tmp_path / "list.txt")
    users = prepared(config, tmp_path / "after")[1]
    assert users < everyone and len(everyone - users) == 2


def test_a_list_that_cannot_be_read_is_refused_by_key_and_names_nobody(config, tmp_path):
    config.suppress = str(tmp_path / "none.txt")
    with pytest.raises(ConfigError, match="config.suppress: .*none.txt"):
        prepare(config, str(tmp_path / "out"))
    (tmp_path / "none.txt").write_text("1007\n1007\n")
    with pytest.raises(ConfigError, match="config.suppress: .*line 2 has the id of line 1") as told:
        prepare(config, str(tmp_path / "out"))
    assert "1007" not in str(told.value)
    assert not (tmp_path / "out").exists()


def test_a_list_that_is_changed_while_it_is_used_is_refused(config, tmp_path):
    config.suppress = str(tmp_path / "list.txt")

    def engine(job):
        (tmp_path / "list.txt").write_text("1007\n")
        return Built({}, 0)

    with pytest.raises(DataError, match="list.txt: was changed meanwhile"):
        prepare(config, str(tmp_path / "out"), engine)
    assert not (tmp_path / "out").exists()
