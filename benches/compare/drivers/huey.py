"""Huey: a consumer with its default of one thread."""

from collections.abc import Sequence
from datetime import datetime

from huey import RedisHuey

import driver


class Huey(driver.Driver):
    package = "huey"
    blocks = True
    retries = True

    def make(self, handler: driver.Handler) -> None:
        self.huey = RedisHuey("bench", url=self.url)

        @self.huey.task(name="noop", retries=1)
        def noop(data: driver.Data) -> None:
            handler(data)

        self.task = noop

    async def open(self) -> None:
        self.make(driver.seen)

    async def add(self, data: driver.Data) -> None:
        self.task(data)

    async def add_at(self, batch: Sequence[driver.Data], due: float) -> None:
        at = datetime.fromtimestamp(due)
        for data in batch:
            self.task.schedule(args=(data,), eta=at)

    def work(self, handler: driver.Handler) -> None:
        self.make(handler)
        self.huey.create_consumer().run()


if __name__ == "__main__":
    driver.main(Huey)
