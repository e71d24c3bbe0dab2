"""The actions of `clue-jax embeddings`: what is done with an export once it is there."""

from __future__ import annotations

from clue_jax.cli_stage import Stage


def _verify(directory: str) -> None:
    from clue_jax.console import say
    from clue_jax.embeddings.verify import verify

    say(verify(directory))


ACTIONS = (
    Stage(
        "embeddings verify",
        "compare every byte of an export with its manifest",
        _verify,
        positional=("directory",),
        example="embeddings verify runs/first/users",
    ),
)
