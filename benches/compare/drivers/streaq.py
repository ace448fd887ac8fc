"""streaq: `Worker(concurrency=100)`."""

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone

from streaq import StreaqRetry, Worker

import driver


class Streaq(driver.Driver):
    package = "streaq"
    retries = True

    def make(self, handler: driver.Handler) -> None:
        self.worker = Worker(redis_url=self.url, concurrency=100)

        @self.worker.task(name="noop")
        async def noop(data: driver.Data) -> None:
            try:
                handler(data)
            except driver.Flaky:
                raise StreaqRetry("once", delay=timedelta(seconds=0.1)) from None

        self.task = noop

    async def open(self) -> None:
        self.make(driver.seen)
        await self.worker.__aenter__()

    async def add(self, data: driver.Data) -> None:
        await self.task.enqueue(data)

    async def add_many(self, batch: Sequence[driver.Data]) -> None:
        await self.worker.enqueue_many([self.task.enqueue(data) for data in batch])

    async def add_at(self, batch: Sequence[driver.Data], due: float) -> None:
        at = datetime.fromtimestamp(due, timezone.utc)
        tasks = [self.task.enqueue(data).start(schedule=at) for data in batch]
        await self.worker.enqueue_many(tasks)

    def work(self, handler: driver.Handler) -> None:
        self.make(handler)
        self.worker.run_sync()


if __name__ == "__main__":
    driver.main(Streaq)
