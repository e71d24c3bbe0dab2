"""What goes to the builder of the image; tests/launch/image_check.py builds and runs all of it."""

import os
import shutil
import subprocess

import pytest

from tests.launch.image_check import PLANTED, ROOT, context

ROOTLESS = os.geteuid() != 0


@pytest.mark.skipif(shutil.which("buildah") is None, reason="buildah is not installed")
@pytest.mark.skipif(ROOTLESS, reason="buildah copies as root alone where there are no namespaces")
def test_what_is_no_part_of_the_image_does_not_go_to_its_builder(tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")

    def sent(ignored):
        storage = ("--root", tmp_path / "root", "--runroot", tmp_path / "run")
        out = tmp_path / f"sent by {ignored.name}"
        with context() as code:
            own = ("--file", tmp_path / "Dockerfile", "--ignorefile", ignored, "--output", out)
            argv = ["buildah", *storage, "--storage-driver=vfs", "build", *own, code]
            done = subprocess.run(argv, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
        return {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}

    (tmp_path / "nothing").write_text("")
    assert set(PLANTED) <= sent(tmp_path / "nothing")  # or it would prove nothing
    found = sent(ROOT / ".dockerignore")
    assert {"setup.py", "clue_jax/cli.py", "configs/pretrain.py"} <= found
    assert not set(PLANTED) & found
    assert {name.split("/")[0] for name in found if "/" in name} == {"clue_jax", "configs"}
