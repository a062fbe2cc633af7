"""Datasets of PyTorch from records: each worker of each process reads its own part."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from torch.utils.data import IterableDataset, get_worker_info

from codecmeta import VideoMeta, open_dataset
from compress.errors import ConfigError


class MetaStream(IterableDataset[VideoMeta]):
    """The records of a folder, of tar shards or of an index, in the order of their places.

    Of `world` processes with w workers each, worker k of process `rank` reads every (world * w)-th record from number
    rank * w + k on: together they read each record once. Without a batch size, a `DataLoader` yields the records as
    they are: `DataLoader(MetaStream("packed/"), batch_size=None, num_workers=4)`.

    Args:
        path: as `codecmeta.open_dataset` takes it.
        columns: names of the arrays to read besides the packet table; None reads all.
        rank: of this process, from 0; None reads it from the environment (RANK, as torchrun sets it), else 0.
        world: number of processes; None reads it from the environment (WORLD_SIZE), else 1.

    Raises:
        ConfigError: `rank` is not one of `world` processes.
        UsageError: no record is found, or a column is unknown.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        columns: Sequence[str] | None = None,
        rank: int | None = None,
        world: int | None = None,
    ) -> None:
        super().__init__()
        self.records = open_dataset(path, columns=columns)
        self.rank = int(os.environ.get("RANK", "0")) if rank is None else rank
        self.world = int(os.environ.get("WORLD_SIZE", "1")) if world is None else world
        if not 0 <= self.rank < self.world:
            raise ConfigError(f"rank={self.rank} of world={self.world}; allowed are ranks from 0 to world - 1")

    def __iter__(self) -> Iterator[VideoMeta]:
        worker = get_worker_info()
        number, count = (0, 1) if worker is None else (worker.id, worker.num_workers)
        return iter(self.records[self.rank * count + number :: self.world * count])
