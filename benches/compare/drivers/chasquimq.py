"""ChasquiMQ 1.3: `Worker(concurrency=100)`; events are on by default."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timezone

import driver
from chasquimq import Job, Queue, Worker


class ChasquiMQ(driver.Driver):
    package = "chasquimq"
    retries = True

    async def open(self) -> None:
        self.queue = Queue("bench", redis_url=self.url)

    async def add(self, data: driver.Data) -> None:
        await self.queue.add("noop", data)

    async def add_many(self, batch: Sequence[driver.Data]) -> None:
        await self.queue.add_bulk([{"name": "noop", "data": data} for data in batch])

    async def add_at(self, batch: Sequence[driver.Data], due: float) -> None:
        at = datetime.fromtimestamp(due, timezone.utc)
        await self.queue.add_bulk(
            [{"name": "noop", "data": data, "delay_ms": at} for data in batch]
        )

    def work(self, handler: driver.Handler) -> None:
        async def on_job(job: Job) -> None:
            handler(job.data)

        async def run() -> None:
            events = self.variant != "events off"
            await Worker(
                "bench", on_job, redis_url=self.url, concurrency=100, events_enabled=events
            ).run()

        asyncio.run(run())


if __name__ == "__main__":
    driver.main(ChasquiMQ)
