"""Cards of models say what their runs were, and nothing of anybody or of any place."""

import json

from clue_jax import UserEncoder
from clue_jax.training.card import write_run_card
from tests.stages import rows


def test_a_run_has_a_card(smoke_run, smoke_data):
    card = (smoke_run / "card.md").read_text()
    fingerprint = json.loads((smoke_data / "manifest.json").read_text())["fingerprint"]
    last = [row for row in rows(smoke_run) if row.get("split") == "validation"][-1]
    batch = json.loads((smoke_run / "config.json").read_text())["train"]["batch_users"]
    for said in (
        f"| datasets, by fingerprint | `{fingerprint[:12]}` |",
        "| steps | 20 of 20 |",
        f"| saw | {20 * batch:,} users in batches of {batch}, each as two views",
        "of steps 15, 20",
        f"R@10 {last['recall_at_10']:.3f}, MRR {last['mrr']:.3f} among {last['users']}",
        "not for deciding on credit",
    ):
        assert said in card
    assert str(smoke_data) not in card and "user-" not in card


def test_energy_is_that_of_the_operations(smoke_run, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("config.json", "dataset.json", "environment.json", "guides.json"):
        (folder / name).write_bytes((smoke_run / name).read_bytes())
    # The paper's largest run, as docs/broader-impacts.md reckons: 4.3e18 operations, 2.5 kWh.
    steps = [{"step": n, "flops": 2.15e18, "step_seconds": 3_600.0} for n in (10, 20)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in steps) + '{"st')
    write_run_card(folder)
    card = (folder / "card.md").read_text()
    assert "4.30e+18 floating-point operations in 2:00:00" in card and "**2.5 kWh**" in card
    assert "There has been none." in card and "| checkpoints | none |" in card
    (folder / "metrics.jsonl").write_text("")
    write_run_card(folder)
    assert "No step has been logged." in (folder / "card.md").read_text()


def test_a_saved_encoder_has_a_card_that_may_be_edited(smoke_run, tmp_path):
    encoder = UserEncoder.from_pretrained(smoke_run)
    encoder.save(tmp_path / "encoder")
    path = tmp_path / "encoder" / "card.md"
    card = path.read_text()
    assert f"| version | `{encoder.model_version}` |" in card and "## Limits" in card
    (code,) = card.split("```python\n")[1:]
    code = code.partition("```")[0].replace('"DIR"', repr(str(tmp_path / "encoder")))
    path.write_text("Ours.")
    found = {}
    exec(code, found)  # the example on the card
    assert found["z"].shape == (1, encoder.config.embedding_width)
