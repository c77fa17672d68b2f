"""Encoding on many machines with Ray Data. Needs the extra `lexel[ray]`."""

from __future__ import annotations

import json
import logging
import pickle
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from lexel._core.devices import pick_device
from lexel._core.errors import reason_of
from lexel._core.plugins import import_plugin, imported_plugins
from lexel.tokens.encode import Done, Engine, Work

__all__ = ["on_ray"]

SECONDS_TO_ANSWER = 10.0


class Worker:
    """Encodes shards in a process of the cluster.

    Args:
        work: the `Work`, pickled, with its model on a CPU.
        plugins: files to import before it is read, since it may hold objects of their classes.
        device: where to compute.
    """

    def __init__(self, work: bytes, plugins: Sequence[Path], device: str) -> None:
        self.pickled, self.plugins, self.device = work, plugins, device

    @cached_property
    def work(self) -> Work:
        """What to encode."""
        for path in self.plugins:
            import_plugin(path)
        work: Work = pickle.loads(self.pickled)  # of the process that started this one
        return replace(work, model=work.model.to(pick_device(self.device)))

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Encode the shard of a number."""
        try:
            done = self.work.encode(int(row["number"]))
        except (ValueError, OSError, ImportError) as error:  # said by the command that waits, in one line
            return {"done": "", "error": str(error), "refused": isinstance(error, ValueError)}
        return {"done": json.dumps(done.as_json()), "error": "", "refused": False}


def on_ray(address: str | None = "local", *, device: str = "auto", workers: int | None = None) -> Engine:
    """Return an engine for `lexel.tokens.encode` that encodes shards on a cluster, many at once.

    All machines must see the data, the folder of the tokens and plugins under the same path. A shard's content does not
    depend on who encodes it, and it is written where it is encoded: no token travels.

    Args:
        address: of the cluster, as `ray.init` takes it; `"local"` starts one on this machine. Where a program has
            called `ray.init` itself, its cluster is taken.
        device: where each worker computes; with accelerators in the cluster, each worker has one.
        workers: the most that compute at once; by default one for each accelerator or processor.

    Raises:
        ImportError: Ray is missing.
        ConnectionError: nobody answers at the address; said when the engine begins.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ImportError(f"--ray needs Ray: pip install 'lexel[ray]' ({error})") from error

    def engine(work: Work, numbers: Sequence[int], advance: Callable[[int], None]) -> Iterator[Done]:
        if not numbers:
            return
        started = not ray.is_initialized()
        if started:
            _require_reachable(address)
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, include_dashboard=False)
        try:
            context = ray.data.DataContext.get_current()
            context.enable_progress_bars = False
            logging.getLogger("ray.data").setLevel(logging.ERROR)
            resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
            accelerated = device != "cpu" and resources.get("GPU", 0) >= 1
            most = workers or int(resources["GPU" if accelerated else "CPU"])
            shards = ray.data.from_items([{"number": number} for number in numbers], override_num_blocks=len(numbers))
            pickled: bytes = ray.cloudpickle.dumps(replace(work, model=work.model.cpu()))  # type: ignore[no-untyped-call]
            done = shards.map(
                Worker,  # type: ignore[arg-type]
                fn_constructor_args=(pickled, imported_plugins(), device),
                num_cpus=1,
                num_gpus=1 if accelerated else 0,
                concurrency=(1, max(min(most, len(numbers)), 1)),
            )
            for row in done.iter_rows():
                if row["error"]:
                    raise (ValueError if row["refused"] else OSError)(row["error"])
                each = Done.from_json(json.loads(row["done"]))
                advance(len(work.part(each.number)))
                yield each
        finally:
            if started:
                ray.shutdown()

    return engine


def _require_reachable(address: str | None) -> None:
    """Refuse an address at which nobody answers: Ray would wait for many minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not port.isdecimal():  # "local", "auto", or none
        return
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=SECONDS_TO_ANSWER):
            pass
    except (OSError, OverflowError) as error:
        raise ConnectionError(f"no Ray cluster answers at {address}: {reason_of(error)}") from error
