"""taskiq with taskiq-redis' ListQueueBroker: at most 100 async tasks."""

import asyncio

from taskiq import SimpleRetryMiddleware
from taskiq.api import run_receiver_task
from taskiq_redis import ListQueueBroker

import driver


class Taskiq(driver.Driver):
    package = "taskiq-redis"
    retries = True

    def make(self, handler: driver.Handler) -> None:
        self.broker = ListQueueBroker(self.url).with_middlewares(SimpleRetryMiddleware(2))

        @self.broker.task("noop")
        async def noop(data: driver.Data) -> None:
            handler(data)

        self.task = noop.kicker()

    async def open(self) -> None:
        self.make(driver.seen)
        await self.broker.startup()
        self.flaky = self.task.with_labels(retry_on_error=True)

    async def add(self, data: driver.Data) -> None:
        await (self.flaky if self.storm else self.task).kiq(data)

    def work(self, handler: driver.Handler) -> None:
        self.make(handler)
        asyncio.run(run_receiver_task(self.broker, max_async_tasks=100, run_startup=True))


if __name__ == "__main__":
    driver.main(Taskiq)
