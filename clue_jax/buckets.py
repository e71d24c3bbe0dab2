"""Buckets (gs://, s3://) where they are unlike folders: no directories, no rename, whole URLs."""

from __future__ import annotations

from collections.abc import Iterator

import fsspec
from etils import epath

# Others write there too, and what has been moved in place may have another size than was listed:
# clients that went by an old list read files cut to what they had been.
for _protocol in ("gs", "gcs", "s3", "s3a"):
    fsspec.config.conf.setdefault(_protocol, {}).setdefault("use_listings_cache", False)

SEALS = ("manifest.json", "_SUCCESS")  # written last, in this order: what they lie in is whole


def in_bucket(path: epath.PathLike) -> bool:
    """Whether a path is a URL, such as gs://bucket/runs."""
    return "://" in str(path)


def absolute(path: epath.PathLike) -> epath.Path:
    """The whole path; a URL is whole as it is, which `resolve` would make a local path of."""
    path = epath.Path(path)
    return path if in_bucket(path) else path.resolve()


def make_folder(folder: epath.Path) -> None:
    """A folder with those above it. Buckets need none; their libraries would make the bucket too,
    where its name has a slip."""
    if not in_bucket(folder):
        folder.mkdir(parents=True, exist_ok=True)


def listed(folder: epath.PathLike) -> list[epath.Path]:
    """What lies in a folder; in a bucket one that has been made is not there while it is empty."""
    folder = epath.Path(folder)
    return sorted(folder.iterdir()) if folder.exists() or not in_bucket(folder) else []


def clear(folder: epath.Path) -> None:
    """Removes everything in a folder."""
    for path in listed(folder):
        if path.is_dir():
            path.rmtree()
        else:
            path.unlink()


def files_under(folder: epath.Path, below: str = "") -> Iterator[str]:
    """Paths of all files under a folder, relative to it, in order."""
    for path in listed(folder):
        name = f"{below}{path.name}"
        if path.is_dir():
            yield from files_under(path, f"{name}/")
        else:
            yield name


def checkpoint_steps(folder: epath.PathLike) -> list[int]:
    """Steps whose checkpoints are whole, in order: where nothing can be renamed, one that is being
    written, or was when its writer died, has its name already, but no `commit_success.txt`."""
    found = [path for path in listed(folder) if path.name.isdecimal()]
    if in_bucket(folder):
        found = [path for path in found if (path / "commit_success.txt").exists()]
    return sorted(int(path.name) for path in found)


def move_files(partial: epath.Path, final: epath.Path) -> None:
    """Moves a tree file by file; those that say that it is whole go first and come last."""
    store, source = fsspec.core.url_to_fs(str(partial))
    _, target = fsspec.core.url_to_fs(str(final))

    def last(name: str) -> tuple[int, str]:
        names = name.rpartition("/")[2]
        return (SEALS.index(names) if names in SEALS else -1, name)

    if store.exists(target):
        for path in sorted(store.find(target), key=last, reverse=True):
            store.rm(path)
    for path in sorted(store.find(source), key=last):
        store.mv(path, target + path.removeprefix(source))
