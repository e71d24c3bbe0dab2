"""Several processes, or hosts that know nothing of each other, make one export.

The part is the unit of work: process i of P makes parts k where k % P == i. Nobody waits to begin
and nobody leads. Who finds markers of all parts in the folder, and takes the lease of the export,
writes the manifest and gives the folder its final name.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

import jax
from etils import epath

from clue_jax import files, leases, publishing
from clue_jax.errors import LockedError
from clue_jax.exporting.folder import ExportFolder, is_export

LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class Share:
    """What of an export is this process's: part k where k % count == index.

    `of_job` says whether the others are processes of one job, which end together.
    """

    index: int = 0
    count: int = 1
    of_job: bool = False

    @property
    def alone(self) -> bool:
        return self.count == 1

    def parts(self, count: int) -> range:
        """Its parts."""
        return range(self.index, count, self.count)

    @contextlib.contextmanager
    def folder(self, out: epath.PathLike) -> Iterator[epath.Path]:
        """The unfinished folder of an export, while this process holds its lease.

        Raises:
            LockedError: another live process makes the same export, or the same share.
            StorageError: the file system refused.
        """
        sharer = "" if self.alone else f"{self.index}-of-{self.count}"
        partial = publishing.partial_of(out)
        with leases.lease(publishing.lock_of(out, sharer)), files.storage_errors(partial):
            if self.alone:
                publishing.refuse_sharers(out)
            partial.mkdir(parents=True, exist_ok=True)
            yield partial

    def publish(self, folder: ExportFolder, out: epath.PathLike) -> bool:
        """Finishes and publishes an export of which all parts are done; False where they are not.

        Raises:
            LockedError: something else holds the export, for more than a minute.
        """
        limit = time.monotonic() + leases.LEASE_STALE_SECONDS
        while True:
            try:
                return self._publish(folder, epath.Path(out))
            except LockedError:  # another sharer is at it
                if self.alone or time.monotonic() > limit:
                    raise
                time.sleep(LOOK_SECONDS)

    def _publish(self, folder: ExportFolder, out: epath.Path) -> bool:
        # Alone, it holds the lease already.
        held = contextlib.nullcontext() if self.alone else leases.lease(publishing.lock_of(out))
        with held, files.storage_errors(folder.path):
            if not self.alone and is_export(out, folder.export_id):
                return True
            if not folder.already():
                entries = folder.complete()
                if entries is None:
                    return False
                folder.conclude(entries)
            publishing.publish(folder.path, out)
        return True


def share_of(host: str) -> Share:
    """The share of this process: as `config.host` says, i/P; else of the processes of its job."""
    if host:
        index, _, count = host.partition("/")
        return Share(int(index), int(count))
    return Share(jax.process_index(), jax.process_count(), of_job=jax.process_count() > 1)
