"""RQ: `Worker` with its defaults, which forks a process a job; logging of each job off."""

from collections.abc import Sequence
from datetime import datetime, timezone

from redis import Redis
from rq import Queue, Retry, Worker

import driver


class RQ(driver.Driver):
    package = "rq"
    blocks = True
    retries = True

    async def open(self) -> None:
        self.queue = Queue("bench", connection=Redis.from_url(self.url))

    async def add(self, data: driver.Data) -> None:
        if self.storm:
            self.queue.enqueue(driver.seen_or_flaky, data, retry=Retry(max=1))
        else:
            self.queue.enqueue(driver.seen, data)

    async def add_many(self, batch: Sequence[driver.Data]) -> None:
        function = driver.seen_or_flaky if self.storm else driver.seen
        retry = Retry(max=1) if self.storm else None
        self.queue.enqueue_many(
            [Queue.prepare_data(function, (data,), retry=retry) for data in batch]
        )

    async def add_at(self, batch: Sequence[driver.Data], due: float) -> None:
        at = datetime.fromtimestamp(due, timezone.utc)
        for data in batch:
            self.queue.enqueue_at(at, driver.seen, data)

    def work(self, handler: driver.Handler) -> None:
        queue = Queue("bench", connection=Redis.from_url(self.url))
        Worker([queue], connection=queue.connection).work(
            logging_level="CRITICAL", with_scheduler=True
        )


if __name__ == "__main__":
    driver.main(RQ)
