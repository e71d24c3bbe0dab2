"""Reserved guide tokens: which services that came after a tokenizer have them.

A tokenizer.json holds the guides of the services it was trained with. A service that comes later is
read through the generic guide, or has a reserved one. Who has which is said by `guides` in the
manifest of a dataset, and by guides.json of a run that was trained on it; what is prepared with the
tokenizer of either keeps to that, so that a guide never comes to mean two services.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from etils import epath

from clue_jax.config import NewServices
from clue_jax.data import tokenizer as bpe
from clue_jax.data.manifest import read_manifest
from clue_jax.data.tokenizer import FIRST_SERVICE_GUIDE, GENERIC_GUIDE, Tokenizer
from clue_jax.errors import ConfigError, DataError
from clue_jax.files import read_json

RUN_FILE = "guides.json"  # of a run directory: service -> guide token


def given_tokenizer(path: epath.PathLike) -> Tokenizer:
    """The tokenizer of a run or of a dataset, with the reserved guides that were given there.

    Args:
        path: its directory, or the tokenizer.json in it. A copy elsewhere has no reserved guides.

    Raises:
        DataError: a file that is missing or not ours; names it.
    """
    found = epath.Path(path)
    folder = found if found.is_dir() else found.parent
    file = folder / "tokenizer.json" if found.is_dir() else found
    if found.is_dir() and not file.exists():
        raise DataError(f"{file}: no such file; {folder} is neither a run nor a prepared dataset")
    return bpe.load(file).with_reserved(_given_in(folder))


def guide_services(tokenizer: Tokenizer, services: Sequence[str], new: NewServices) -> Tokenizer:
    """The tokenizer with a reserved guide for each service it does not know, if they are asked for.

    In order of names the new services get the lowest guides that are free; what was given stays.

    Raises:
        ConfigError: more services than guides are left; names those that get none.
    """
    if new is NewServices.GENERIC:
        return tokenizer
    unknown = sorted(s for s in services if tokenizer.guide(s) == GENERIC_GUIDE)
    taken = set(tokenizer.reserved.values())
    free = [g for g in range(GENERIC_GUIDE + 1, FIRST_SERVICE_GUIDE) if g not in taken]
    if len(unknown) > len(free):
        raise ConfigError(
            f"config.tokenizer.new_services: {len(free)} reserved guides are free, and"
            f" {len(unknown)} services are new; none is left for"
            f" {', '.join(unknown[len(free) :])}; use tokenizer.new_services=generic"
        )
    given = dict(zip(unknown, free, strict=False))
    return tokenizer.with_reserved({**tokenizer.reserved, **given})


def guides_of(tokenizer: Tokenizer, services: Sequence[str]) -> dict[str, int]:
    """The guide of each service that has one to itself."""
    guides = {service: tokenizer.guide(service) for service in services}
    return {service: guide for service, guide in guides.items() if guide != GENERIC_GUIDE}


def clash(one: Mapping[str, int], other: Mapping[str, int]) -> str:
    """How two say different things of a service or a guide; empty: they do not."""
    services = {guide: service for service, guide in one.items()}
    for service, guide in sorted(other.items()):
        if one.get(service, guide) != guide:
            return f"service {service!r} has guide {one[service]} and {guide}"
        if services.get(guide, service) != service:
            return f"guide {guide} is of service {services[guide]!r} and of {service!r}"
    return ""


def _given_in(folder: epath.Path) -> dict[str, int]:
    if (folder / RUN_FILE).exists():
        guides = read_json(folder / RUN_FILE)
    elif (folder / "manifest.json").exists():
        guides = read_manifest(folder).get("guides", {})
    else:
        return {}
    return {s: guide for s, guide in guides.items() if guide < FIRST_SERVICE_GUIDE}
