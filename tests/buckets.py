"""A bucket in memory: objects without directories, for what etils reads and writes as gs://."""

import contextlib

import fsspec
from etils.epath import backend
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry as registry


class Bucket(MemoryFileSystem):
    """As object stores are: a folder is there while an object lies in it, and is never made."""

    protocol = "gs"
    store: dict = {}
    pseudo_dirs: list = []
    cachable = False

    def _open(self, path, mode="rb", **more):
        assert "a" not in mode, "gcsfs would write over what is there"
        return super()._open(path, mode, **more)

    def mkdir(self, path, create_parents=True, **more):
        pass

    def makedirs(self, path, exist_ok=False):
        pass

    def mv(self, path1, path2, recursive=False, **more):
        assert self.isfile(path1), "there is no directory that could be renamed"
        self.store[self._strip_protocol(path2)] = self.store.pop(self._strip_protocol(path1))

    rename = mv


@contextlib.contextmanager
def bucket():
    """Yields the objects of all buckets, by URL."""
    before = {name: registry.get(name) for name in ("gs", "gcs")}
    for name in before:
        fsspec.register_implementation(name, Bucket, clobber=True)
    backend._FileSystemSpecBackend._get_filesystem.cache_clear()
    Bucket.store.clear()
    try:
        yield Bucket.store
    finally:
        for name, kind in before.items():
            registry.pop(name)
            if kind:
                registry[name] = kind
        backend._FileSystemSpecBackend._get_filesystem.cache_clear()
