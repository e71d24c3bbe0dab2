"""With every privacy option on, what they are to keep out is in no artefact of any stage."""

import contextlib
import datetime
import io
import json

import pytest

from clue_jax import cli
from clue_jax.data.privacy import Pseudonyms
from clue_jax.data.source import open_dataset
from clue_jax.embeddings.reader import read_embeddings
from tests.faults.logs import arguments, write
from tests.stages import run_stage
from tests.test_canary import PERSON, SECRET, TINY, evaluate, holding, word

EMAIL, PHONE, CARD = "canary.mail@example.org", "+49 30 901820", "4111 1111 1111 1111"
PATTERN = "KD-774411"  # a customer number, for a pattern of the company's own
USERS, DAYS = 80, 30
SUPPRESSED, UNLEARNT, UNEXPORTED, ERASED = 11, 12, 13, 14  # users of the training split


def old_word(user):
    return f"archived{word(user, 99)}"


def rows(now):
    """Behaviour of the last days, and one behaviour of each user long before."""
    for user in range(USERS):
        for n in range(6):
            planted = (EMAIL, PHONE, CARD, PATTERN, "", "")[n]
            yield person(user), now - n * 86_400, f"a pen {n % 7} {word(user, n)} {planted}"
        yield person(user), now - 2 * DAYS * 86_400, f"a desk {old_word(user)}"


def person(user):
    return f"{PERSON}-{user}@example.org"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Outputs of all stages, beside the logs and what was printed."""
    root, printed = tmp_path_factory.mktemp("options"), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        run_all(root)
    (root / "printed.txt").write_text(printed.getvalue())
    return root


def run_all(root):
    now = int(datetime.datetime.now(datetime.UTC).timestamp())
    for service in ("shop", "news"):
        bad = (person("bad"), "no time", f"{EMAIL} {word(0, 0)}")
        write(root / "logs" / f"{service}.csv", [*rows(now), bad])
    (root / "suppressed.txt").write_text(f"{person(SUPPRESSED)}\n")
    pseudonyms = Pseudonyms(SECRET.encode())
    for user, name in ((UNLEARNT, "unlearnt"), (UNEXPORTED, "unexported"), (ERASED, "erased")):
        (root / f"{name}.txt").write_text(f"{pseudonyms.of(person(user))}\n")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("CLUE_CANARY_KEY", SECRET)
        run_stage("prepare", *prepare_arguments(root))
    out = root / "out"
    unlearnt = f"--config.sampling.suppress={root}/unlearnt.txt"
    run_stage("train", *TINY, f"--data={out}/data", f"--workdir={out}/run", unlearnt)
    run_stage(
        "export",
        f"--workdir={out}/run",
        f"--data={out}/data",
        f"--out={out}/users",
        f"--config.suppress={root}/unexported.txt",
    )
    assert cli.main(["embeddings", "index", f"{out}/users"]) == 0
    run_stage(
        "erase",
        f"--ids={root}/erased.txt",
        *(f"--data={out}/data", f"--embeddings={out}/users", f"--workdir={out}/run"),
        f"--record={out}/record.json",
    )
    evaluate(out)
    for name in ("run", "evaluation"):
        run_stage("report", f"{out}/{name}")


def prepare_arguments(root):
    found = arguments(
        root / "logs",
        root / "out" / "data",
        "--config.pseudonym.key_env=CLUE_CANARY_KEY",
        f"--config.suppress={root}/suppressed.txt",
        f"--config.retention_days={DAYS}",
        "--config.scrub.emails=true",
        "--config.scrub.phones=true",
        "--config.scrub.cards=true",
        "--config.max_bad_rows=2",
        "--config.split.test=0.3",
        "--config.split.validation=0.2",
        sources=(("shop*", "shop"), ("news*", "news")),
    )
    config = root / "logs_config.py"
    source = config.read_text().replace("return PrepareConfig(", "config = PrepareConfig(")
    pattern = "ScrubPattern('customer', r'KD-[0-9]+')"
    source += f"    config.scrub.patterns = ({pattern},)\n    return config\n"
    config.write_text(source.replace("import PrepareConfig", "import PrepareConfig, ScrubPattern"))
    return found


def words_of(user):
    return [word(user, n) for n in range(6)]


def test_scrubbed_texts_and_ids_are_nowhere(folder):
    planted = [PERSON, SECRET, EMAIL, PHONE, CARD, PATTERN]
    assert {len(holding(folder / "logs", one)) for one in planted if one != SECRET} == {2}
    assert holding(folder / "out", *planted) == set()
    counts = open_dataset(folder / "out/data").manifest["replaced"]
    assert sum(counts.values()) == 4 * 2 * (USERS - 1), counts


def test_what_is_older_than_the_retention_window_is_nowhere(folder):
    archived = [old_word(user) for user in range(USERS)]
    assert holding(folder / "logs", *archived) and holding(folder / "out", *archived) == set()


@pytest.mark.parametrize("user", [SUPPRESSED, ERASED])
def test_of_who_is_suppressed_or_erased_not_even_texts_are_left(folder, user):
    others = words_of(UNLEARNT)
    assert holding(folder / "out", *others), "the control: of who is not, texts are in the dataset"
    assert holding(folder / "out", *words_of(user)) == set()
    pseudonym = Pseudonyms(SECRET.encode()).of(person(user))
    assert holding(folder / "out", pseudonym) == set()


def test_each_list_is_honoured_where_it_was_given(folder):
    pseudonyms = Pseudonyms(SECRET.encode())
    there = {user: pseudonyms.of(person(user)) for user in (UNLEARNT, UNEXPORTED, ERASED)}
    exported = set(read_embeddings(folder / "out/users").user_ids)
    dataset = open_dataset(folder / "out/data")
    prepared = {i for split in dataset.manifest["splits"] for i in dataset.users(split).user_ids}
    assert there[UNLEARNT] in exported and there[UNLEARNT] in prepared
    assert there[UNEXPORTED] not in exported and there[UNEXPORTED] in prepared
    assert there[ERASED] not in exported and there[ERASED] not in prepared
    assert len(prepared) == USERS - 2 and len(exported) == USERS - 3
    (line,) = (folder / "out/run/suppressed.jsonl").read_text().splitlines()
    assert json.loads(line)["ids"] == 1


def test_nothing_of_it_was_printed(folder):
    printed = (folder / "printed.txt").read_text()
    assert "clue-jax erase: done" in printed
    private = [PERSON, SECRET, EMAIL, PHONE, CARD, PATTERN]
    private += [w for user in range(USERS) for w in (*words_of(user), old_word(user))]
    assert not [one for one in private if one in printed]
