"""Celery: a worker with its defaults, one process a core; no result backend."""

from collections.abc import Sequence
from datetime import datetime, timezone

from celery import Celery

import driver


class ACelery(driver.Driver):
    package = "celery"
    blocks = True
    retries = True

    def make(self, handler: driver.Handler) -> None:
        self.app = Celery("bench", broker=self.url)

        @self.app.task(
            name="noop", autoretry_for=(driver.Flaky,), default_retry_delay=0.1, max_retries=1
        )
        def noop(data: driver.Data) -> None:
            handler(data)

        self.task = noop

    async def open(self) -> None:
        self.make(driver.seen)

    async def add(self, data: driver.Data) -> None:
        self.task.delay(data)

    async def add_at(self, batch: Sequence[driver.Data], due: float) -> None:
        at = datetime.fromtimestamp(due, timezone.utc)
        for data in batch:
            self.task.apply_async((data,), eta=at)

    def work(self, handler: driver.Handler) -> None:
        self.make(handler)
        self.app.worker_main(["worker", "--loglevel=WARNING"])


if __name__ == "__main__":
    driver.main(ACelery)
