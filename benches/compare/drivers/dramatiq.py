"""Dramatiq: one process with its default of 8 threads."""

import time
from collections.abc import Sequence

import dramatiq
from dramatiq.brokers.redis import RedisBroker

import driver


class Dramatiq(driver.Driver):
    package = "dramatiq"
    blocks = True
    retries = True

    def make(self, handler: driver.Handler) -> None:
        self.broker = RedisBroker(url=self.url)
        dramatiq.set_broker(self.broker)

        @dramatiq.actor(actor_name="noop", min_backoff=100, max_backoff=100)
        def noop(data: driver.Data) -> None:
            handler(data)

        self.actor = noop

    async def open(self) -> None:
        self.make(driver.seen)

    async def add(self, data: driver.Data) -> None:
        self.actor.send(data)

    async def add_at(self, batch: Sequence[driver.Data], due: float) -> None:
        for data in batch:
            delay = max(0, round((due - time.time()) * 1000))
            self.actor.send_with_options(args=(data,), delay=delay)

    def work(self, handler: driver.Handler) -> None:
        self.make(handler)
        dramatiq.Worker(self.broker).start()
        time.sleep(3600)


if __name__ == "__main__":
    driver.main(Dramatiq)
