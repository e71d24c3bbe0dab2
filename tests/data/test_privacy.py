import hashlib
import hmac

import numpy as np
import pytest

from clue_jax.config import PseudonymConfig
from clue_jax.data.privacy import Pseudonyms
from clue_jax.errors import ConfigError

KEY = "0123456789abcdef-secret"


def test_hmac_of_the_user_id(monkeypatch, tmp_path):
    monkeypatch.setenv("CLUE_TEST_KEY", KEY + "\n")
    (tmp_path / "key").write_text(KEY + "\n")
    from_env = Pseudonyms.from_config(PseudonymConfig(key_env="CLUE_TEST_KEY"))
    from_file = Pseudonyms.from_config(PseudonymConfig(key_file=str(tmp_path / "key")))
    assert from_env is not None
    assert from_env == from_file
    expected = hmac.new(KEY.encode(), "Zoë".encode(), hashlib.sha256).hexdigest()
    assert from_env.of_all(np.array(["Zoë", "b"], object)).tolist() == [expected, from_env.of("b")]


def test_another_key_gives_other_pseudonyms():
    one, other = Pseudonyms(b"1" * 16), Pseudonyms(b"2" * 16)
    assert one.of("a") != other.of("a")
    assert one.key_id != other.key_id
    assert len(one.key_id) == 16


def test_the_key_is_not_shown():
    pseudonyms = Pseudonyms(KEY.encode())
    assert KEY not in repr(pseudonyms)
    assert pseudonyms.key_id not in hashlib.sha256(KEY.encode()).hexdigest()


def test_none_asked_for():
    assert Pseudonyms.from_config(PseudonymConfig()) is None


def test_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("CLUE_TEST_KEY", "topsecret")
    with pytest.raises(ConfigError, match=r"CLUE_TEST_KEY.* holds 9 bytes.*at least 16") as caught:
        Pseudonyms.from_config(PseudonymConfig(key_env="CLUE_TEST_KEY"))
    assert "topsecret" not in str(caught.value)
    monkeypatch.delenv("CLUE_TEST_KEY")
    with pytest.raises(ConfigError, match="is not set"):
        Pseudonyms.from_config(PseudonymConfig(key_env="CLUE_TEST_KEY"))
    with pytest.raises(ConfigError, match=r"key_file.*cannot be read"):
        Pseudonyms.from_config(PseudonymConfig(key_file=str(tmp_path / "none")))
    with pytest.raises(ConfigError, match="not both"):
        Pseudonyms.from_config(PseudonymConfig(key_file="a", key_env="b"))
