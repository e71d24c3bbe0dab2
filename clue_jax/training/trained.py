"""A run as others read it: what it was trained with, which data it fits, and its parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from etils import epath

from clue_jax.config import PretrainConfig, from_json
from clue_jax.data import tokenizer as bpe
from clue_jax.data.guides import RUN_FILE, clash, guides_of
from clue_jax.data.source import Dataset
from clue_jax.data.tokenizer import GENERIC_GUIDE, Tokenizer
from clue_jax.errors import CheckpointError
from clue_jax.files import read_json
from clue_jax.model import clue

SUPPRESSED = "suppressed.jsonl"  # suppression lists of a run, a line each


@dataclass(frozen=True)
class TrainedRun:
    """A run directory of `train`; use `read_run`.

    Attributes:
        workdir: the directory.
        config: what it was trained with.
        tokenizer_sha256: of the tokenizer its tokens are of.
        vocab_size: V.
        guides: guide tokens that it, or a run it began from, was trained on, by service.
    """

    workdir: epath.Path
    config: PretrainConfig
    tokenizer_sha256: str
    vocab_size: int
    guides: Mapping[str, int]

    def check_data(self, dataset: Dataset) -> None:
        """Whether the tokens of a dataset are those that the run was trained on.

        Raises:
            CheckpointError: another tokenizer, or another use of a guide; names both.
        """
        tokenizer = dataset.tokenizer
        if self.tokenizer_sha256 != tokenizer.identity:
            raise CheckpointError(
                f"{dataset.path}: tokenizer {tokenizer.identity[:12]} of {tokenizer.vocab_size:,}"
                f" tokens, but {self.workdir} was trained with {self.tokenizer_sha256[:12]} of"
                f" {self.vocab_size:,}, which are the rows of params/encoder/embedding; prepare"
                f" the data with --config.tokenizer.path={self.workdir}"
            )
        problem = clash(self.guides, guides_of(tokenizer, dataset.services))
        if problem:
            raise CheckpointError(
                f"{dataset.path}: {problem}, there and in {self.workdir}; prepare the data with"
                f" --config.tokenizer.path={self.workdir}"
            )

    def read_as_generic(self, dataset: Dataset) -> list[str]:
        """The services of a dataset that the run reads through the generic guide."""
        trained = set(self.guides.values())
        return [s for s in dataset.services if dataset.tokenizer.guide(s) not in trained]

    def with_generic(self, params: clue.Params, tokenizer: Tokenizer) -> clue.Params:
        """Parameters of the run's, in which guides it was never trained on are the generic one.

        As drawn they mean nothing; so a service that has one is read like any service not seen,
        and begins there when it is trained on.
        """
        trained = {GENERIC_GUIDE, *self.guides.values()}
        untrained = [guide for guide in tokenizer.guides if guide not in trained]
        return {
            **params,
            "encoder": clue.embed_like(params["encoder"], untrained, GENERIC_GUIDE),
        }


def read_run(workdir: epath.PathLike) -> TrainedRun:
    """Reads what a run directory says of its run.

    Raises:
        CheckpointError: it is none; names the file that is missing.
    """
    folder = epath.Path(workdir)
    for name in ("config.json", "dataset.json"):
        if not (folder / name).exists():
            raise CheckpointError(
                f"{folder / name}: no such file; {folder} is not a run directory of train"
            )
    path, known = folder / "config.json", read_json(folder / "dataset.json")
    if (folder / RUN_FILE).exists():
        guides = read_json(folder / RUN_FILE)
    else:  # a run from before there were reserved ones
        guides = guides_of(bpe.load(folder / "tokenizer.json"), known["services"])
    config = from_json(PretrainConfig, read_json(path), str(path))
    return TrainedRun(folder, config, known["tokenizer_sha256"], known["vocab_size"], guides)


def trained_guides(datasets: Sequence[Dataset]) -> dict[str, int]:
    """The guides that training on datasets trains, by service."""
    guides: dict[str, int] = {}
    for dataset in datasets:
        behaviours = dataset.manifest["splits"]["train"]["behaviours"]
        used = [service for service, count in behaviours.items() if count]
        guides |= guides_of(dataset.tokenizer, used)
    return guides
