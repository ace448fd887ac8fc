"""saq: `Worker(concurrency=100)`."""

import asyncio
from collections.abc import Sequence

from saq import Queue, Worker

import driver


class Saq(driver.Driver):
    package = "saq"
    retries = True

    async def open(self) -> None:
        self.queue = Queue.from_url(self.url)
        await self.queue.connect()

    async def add(self, data: driver.Data) -> None:
        retry = {"retries": 2, "retry_delay": 0.1} if self.storm else {}
        await self.queue.enqueue("noop", data=data, **retry)

    async def add_at(self, batch: Sequence[driver.Data], due: float) -> None:
        # Its times are whole seconds; the harness asks for such a moment.
        for data in batch:
            await self.queue.enqueue("noop", data=data, scheduled=round(due))

    def work(self, handler: driver.Handler) -> None:
        async def noop(ctx: object, *, data: driver.Data) -> None:
            handler(data)

        async def run() -> None:
            queue = Queue.from_url(self.url)
            await queue.connect()
            await Worker(queue, [("noop", noop)], concurrency=100).start()

        asyncio.run(run())


if __name__ == "__main__":
    driver.main(Saq)
