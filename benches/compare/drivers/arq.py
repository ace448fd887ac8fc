"""arq: `Worker(max_jobs=100)`."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timezone

from arq import Retry, create_pool
from arq.connections import RedisSettings
from arq.worker import Worker, func

import driver


class Arq(driver.Driver):
    package = "arq"
    retries = True

    async def open(self) -> None:
        self.pool = await create_pool(RedisSettings.from_dsn(self.url))

    async def add(self, data: driver.Data) -> None:
        await self.pool.enqueue_job("noop", data)

    async def add_at(self, batch: Sequence[driver.Data], due: float) -> None:
        at = datetime.fromtimestamp(due, timezone.utc)
        for data in batch:
            await self.pool.enqueue_job("noop", data, _defer_until=at)

    def work(self, handler: driver.Handler) -> None:
        async def noop(ctx: object, data: driver.Data) -> None:
            try:
                handler(data)
            except driver.Flaky:
                raise Retry(defer=0.1) from None

        asyncio.set_event_loop(asyncio.new_event_loop())
        settings = RedisSettings.from_dsn(self.url)
        Worker([func(noop, name="noop")], redis_settings=settings, max_jobs=100).run()


if __name__ == "__main__":
    driver.main(Arq)
