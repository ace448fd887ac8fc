"""ChasquiMQ itself, in the ways it can be used."""

import asyncio
import inspect
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

import driver
from chasquimq import Job, Queue, SyncQueue, Worker

BATCH = 100
PACK = 64


def _takes(function: Any, parameter: str) -> bool:
    return parameter in inspect.signature(function).parameters


class Ours(driver.Driver):
    """`Worker(concurrency=100)` with an async handler, unless the variant says otherwise."""

    package = "chasquimq"
    retries = True

    def offers(self) -> bool:
        """Whether batches and packed entries, when asked for, are there."""
        batches = "batch" not in self.variant or _takes(Worker.__init__, "batch")
        return batches and ("packed" not in self.variant or _takes(Queue.add_bulk, "pack"))

    def abilities(self) -> list[str]:
        """Return what can be measured; of the blocking queue, adding one job after another."""
        return [] if "SyncQueue" in self.variant else super().abilities()

    async def open(self) -> None:
        """Make the queue; it connects by itself."""
        self.blocks = "SyncQueue" in self.variant
        self.queue = Queue("bench", redis_url=self.url)
        if self.blocks:
            self.sync_queue = SyncQueue("bench", redis_url=self.url)
        self.options: dict[str, Any] = {"pack": PACK} if "packed" in self.variant else {}

    async def add(self, data: driver.Data) -> None:
        """Add one job."""
        await self.queue.add("noop", data)

    async def add_each(self, jobs: Sequence[driver.Data]) -> None:
        """Add one job after another; the blocking queue does in a thread without an event loop."""
        await (asyncio.to_thread(self._block, jobs) if self.blocks else super().add_each(jobs))

    def _block(self, jobs: Sequence[driver.Data]) -> None:
        for data in jobs:
            self.sync_queue.add("noop", data)

    async def add_many(self, batch: Sequence[driver.Data]) -> None:
        """Add many jobs with one call."""
        await self.queue.add_bulk(
            [{"name": "noop", "data": data} for data in batch], **self.options
        )

    async def add_at(self, batch: Sequence[driver.Data], due: float) -> None:
        """Add many delayed jobs with one call."""
        at = datetime.fromtimestamp(due, timezone.utc)
        await self.queue.add_bulk(
            [{"name": "noop", "data": data, "delay_ms": at} for data in batch]
        )

    def work(self, handler: driver.Handler) -> None:
        """Run a worker, in uvloop if the variant says so."""
        run = asyncio.run
        if "uvloop" in self.variant:
            import uvloop  # type: ignore[import-not-found, unused-ignore]

            run = uvloop.run
        run(self._work(handler))

    async def _work(self, handler: driver.Handler) -> None:
        options: dict[str, Any] = {"batch": BATCH} if "batch" in self.variant else {}
        worker = Worker(
            "bench",
            self._handler(handler),
            redis_url=self.url,
            concurrency=100,
            events_enabled="events off" not in self.variant,
            **options,
        )
        await worker.run()

    def _handler(self, handler: driver.Handler) -> Any:
        async def on_job(job: Job) -> None:
            handler(job.data)

        def in_a_thread(job: Job) -> None:
            handler(job.data)

        async def on_jobs(jobs: list[Job]) -> None:
            for job in jobs:
                handler(job.data)

        if "batch" in self.variant:
            return on_jobs
        return in_a_thread if "def" in self.variant.split() else on_job


if __name__ == "__main__":
    driver.main(Ours)
