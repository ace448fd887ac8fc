"""docket: `Worker(concurrency=100)`.

Delayed jobs are left out: with so many due at once its pool runs out of connections, and a job that
meets that comes back after its redelivery timeout of five minutes.
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

from docket import Docket, Retry, Worker

import driver


class ADocket(driver.Driver):
    package = "pydocket"
    retries = True

    def tasks(self, handler: driver.Handler) -> None:
        async def noop(data: driver.Data) -> None:
            handler(data)

        once = Retry(attempts=2, delay=timedelta(seconds=0.1))

        async def flaky(data: driver.Data, retry: Retry = once) -> None:
            handler(data)

        self.docket.register(noop)
        self.docket.register(flaky)

    async def open(self) -> None:
        self.docket = await Docket(url=self.url).__aenter__()
        self.tasks(driver.seen)

    async def add(self, data: driver.Data) -> None:
        await self.docket.add("flaky" if self.storm else "noop")(data)

    async def add_many(self, batch: Sequence[driver.Data]) -> None:
        call = self.docket.call
        await self.docket.add_many(call("flaky" if self.storm else "noop")(data) for data in batch)

    def work(self, handler: driver.Handler) -> None:
        async def run() -> None:
            async with Docket(url=self.url) as self.docket:
                self.tasks(handler)
                async with Worker(self.docket, concurrency=100) as worker:
                    await worker.run_forever()

        asyncio.run(run())


if __name__ == "__main__":
    driver.main(ADocket)
