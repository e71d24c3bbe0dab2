"""People on a suppression list get no embedding; all others get theirs."""

import numpy as np
import pytest

from clue_jax.config import ExportConfig, ExportWhat
from clue_jax.embeddings.reader import read_embeddings, read_manifest
from clue_jax.errors import ConfigError
from clue_jax.export import export
from tests.stages import run_stage


def test_listed_people_get_no_embedding(smoke_run, smoke_data, tmp_path):
    arguments = ("export", f"--workdir={smoke_run}", f"--data={smoke_data}")
    run_stage(*arguments, f"--out={tmp_path}/all")
    everyone = read_embeddings(tmp_path / "all")
    listed = everyone.user_ids[[3, 50, 117]].tolist()
    # One who is in no dataset is on the list too.
    (tmp_path / "list.txt").write_text("\n".join([*listed, "somebody else"]))
    run_stage(*arguments, f"--out={tmp_path}/some", f"--config.suppress={tmp_path}/list.txt")
    some = read_embeddings(tmp_path / "some")
    assert set(some.user_ids) == set(everyone.user_ids) - set(listed)
    of_all = dict(zip(everyone.user_ids, everyone.embedding_NE, strict=True))
    expected = np.stack([of_all[user] for user in some.user_ids])
    np.testing.assert_allclose(some.embedding_NE, expected, atol=1e-6)
    assert read_manifest(tmp_path / "some")["suppressed"] | {"sha256": ""} == {
        "ids": 4,
        "users": 3,
        "sha256": "",
    }
    assert "suppressed" not in read_manifest(tmp_path / "all")

    (tmp_path / "list.txt").write_text("\n".join(everyone.user_ids))
    run_stage(*arguments, f"--out={tmp_path}/no", f"--config.suppress={tmp_path}/list.txt", code=3)


def test_a_list_is_refused_where_it_cannot_be_read_or_says_nothing(tmp_path):
    with pytest.raises(ConfigError, match="config.suppress: .*none.txt"):
        export(ExportConfig(suppress=str(tmp_path / "none.txt")), "run", "data", "out")
    with pytest.raises(ConfigError, match="config.suppress: a list of users says nothing of items"):
        export(ExportConfig(what=ExportWhat.ITEMS, suppress="list.txt"), "run", "data", "out")
