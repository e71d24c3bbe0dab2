"""The actions of `clue-jax embeddings`: what is done with an export once it is there."""

from __future__ import annotations

from typing import Any

from clue_jax.cli_stage import Flag, Stage


def _verify(directory: str) -> None:
    from clue_jax.console import say
    from clue_jax.embeddings.verify import verify

    say(verify(directory))


def _stats(directory: str) -> None:
    from clue_jax.console import say
    from clue_jax.embeddings.stats import describe, statistics

    say("\n".join(describe(statistics(directory))))


def _index(directory: str, suppress: str, **settings: Any) -> None:
    from clue_jax.console import say
    from clue_jax.embeddings.index import IndexSettings
    from clue_jax.embeddings.index_build import build_index, describe_index

    say(describe_index(build_index(directory, IndexSettings(**settings), suppress)))


def _neighbours(directory: str, user: str, k: int, service: str, index: bool) -> None:
    from clue_jax.console import say
    from clue_jax.embeddings.search import match_lines, neighbours

    say("\n".join(match_lines(neighbours(directory, user, k, service, index))))


def _lookalike(directory: str, **settings: Any) -> None:
    from clue_jax.embeddings.search import write_lookalike

    write_lookalike(directory, **settings)


def _erase(directory: str, ids: str) -> None:
    from clue_jax.console import say
    from clue_jax.data.id_list import read_ids
    from clue_jax.embeddings.erase import erase

    done = erase(directory, read_ids(ids).ids)
    unknown = f" ({len(done.unknown):,} more ids are not in the export)" if done.unknown else ""
    say(f"erased {len(done.erased):,} users{unknown}; parts written anew: {len(done.parts)}")


def _diff(a: str, b: str, changed: float) -> None:
    from clue_jax.console import say
    from clue_jax.embeddings.compare import describe_difference, difference

    say("\n".join(describe_difference(difference(a, b), changed)))


def _align(old: str, new: str, out: str) -> None:
    from clue_jax.console import say
    from clue_jax.embeddings.align import align

    found = align(old, new, out)
    say(
        f"mean cosine of {found.users:,} users of both: {found.before:+.4f} before,"
        f" {found.after:+.4f} after; residual {found.residual:.4f}"
    )
    say(f"wrote {new} in the space of {old} to {out}")


_USERS = ("directory",)
_SERVICE = Flag("service", "whose vectors; else those of all services combined", optional=True)
_INDEX = Flag("index", "search the index that `embeddings index` made", kind=bool)
ACTIONS = (
    Stage(
        "embeddings verify",
        "compare every byte of an export with its manifest",
        _verify,
        positional=_USERS,
        example="embeddings verify runs/first/users",
    ),
    Stage(
        "embeddings stats",
        "rows, services, norms, spread over dimensions, cosines between users",
        _stats,
        positional=_USERS,
        example="embeddings stats runs/first/users",
    ),
    Stage(
        "embeddings index",
        "give an export an index for --index, and measure its recall",
        _index,
        (
            _SERVICE,
            Flag("precision", "of the vectors in it: f32, bf16 or i8", "f32"),
            Flag("connectivity", "links of a node in a layer of the graph", "16", kind=int),
            Flag("expansion_add", "candidates while a node is linked", "128", kind=int),
            Flag("expansion_search", "candidates of a search", "64", kind=int),
            Flag("threads", "of the build; with one it gives the same bytes again", "1", kind=int),
            Flag("suppress", "file of ids of users who are left out of it", optional=True),
        ),
        positional=_USERS,
        example="embeddings index runs/first/users",
    ),
    Stage(
        "embeddings neighbours",
        "the users nearest to one, by exact cosine or by an index",
        _neighbours,
        (
            Flag("user", "id of a user of the export"),
            Flag("k", "neighbours", "10", kind=int),
            _SERVICE,
            _INDEX,
        ),
        positional=_USERS,
        example="embeddings neighbours runs/first/users --user=u42 --k=5",
    ),
    Stage(
        "embeddings lookalike",
        "the users nearest to the mean direction of given ones, without these",
        _lookalike,
        (
            Flag("seeds", "file of user ids, one a line"),
            Flag("size", "users wanted", kind=int),
            Flag(
                "min_audience",
                "refuse fewer seeds, or a smaller audience, than this",
                "100",
                kind=int,
            ),
            Flag(
                "out", "file for the lines of id, tab, cosine; else they are printed", optional=True
            ),
            _SERVICE,
            _INDEX,
        ),
        positional=_USERS,
        example="embeddings lookalike runs/first/users --seeds=buyers.txt --size=1000"
        " --out=audience.tsv",
    ),
    Stage(
        "embeddings erase",
        "remove users from the parts they are in alone, and keep a record of it",
        _erase,
        (Flag("ids", "file of user ids, one a line; unknown ones are counted"),),
        positional=_USERS,
        example="embeddings erase runs/first/users --ids=forget.txt",
    ),
    Stage(
        "embeddings diff",
        "users in both exports, and the cosines of their two vectors",
        _diff,
        (Flag("changed", "a cosine below this counts as changed", "0.99", kind=float),),
        positional=("a", "b"),
        example="embeddings diff runs/first/users runs/second/users",
    ),
    Stage(
        "embeddings align",
        "an export turned into the space of an older one (orthogonal Procrustes)",
        _align,
        (Flag("out", "folder for the turned export"),),
        positional=("old", "new"),
        example="embeddings align runs/first/users runs/second/users --out=runs/second/aligned",
    ),
)
