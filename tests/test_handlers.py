"""Which handler gets a job: the one of the worker, or the one of its name."""

from typing import Any

import pytest

from chasquimq import Job, UnrecoverableError, Worker
from chasquimq.errors import ConfigError
from support.server import Server
from working import eventually, eventually_async, working


@pytest.mark.parametrize("are_async", [True, False])
async def test_each_job_goes_to_the_handler_of_its_name(
    redis_server: Server, queue_name: str, are_async: bool
) -> None:
    seen: list[tuple[str, int]] = []

    async def greet(job: Job) -> None:
        seen.append(("greet", job.data))

    async def pay(job: Job) -> None:
        seen.append(("pay", job.data))
        raise UnrecoverableError("no money")

    def greet_in_thread(job: Job) -> None:
        seen.append(("greet", job.data))

    def pay_in_thread(job: Job) -> None:
        seen.append(("pay", job.data))
        raise UnrecoverableError("no money")

    handlers: Any = {"greet": greet, "pay": pay}
    if not are_async:
        handlers = {"greet": greet_in_thread, "pay": pay_in_thread}
    async with working(redis_server, queue_name, handlers) as (queue, _):
        handlers.clear()
        await queue.add("greet", 1)
        await queue.add("pay", 2)
        await queue.add("greet", 3)
        await eventually(lambda: len(seen) == 3, "three jobs")
        await eventually_async(queue.peek_dlq, "the dead job")
        (dead,) = await queue.peek_dlq()
    assert sorted(seen) == [("greet", 1), ("greet", 3), ("pay", 2)]
    assert (dead["name"], dead["reason"]) == ("pay", "unrecoverable")


async def test_a_job_that_no_handler_is_for_fails_and_is_retried(
    redis_server: Server, queue_name: str
) -> None:
    async def greet(_job: Job) -> None: ...

    async with working(redis_server, queue_name, {"greet": greet, "pay": greet}) as (queue, _):
        await queue.add("send", None, attempts=2)
        await eventually_async(queue.peek_dlq, "the dead job")
        (dead,) = await queue.peek_dlq()
    assert (dead["attempt"], dead["reason"]) == (2, "retries_exhausted")
    assert dead["detail"] == "LookupError: no handler for 'send' here, but for greet, pay"


async def _coroutine(_job: Job) -> None: ...


def _plain(_job: Job) -> None: ...


@pytest.mark.any_server
@pytest.mark.parametrize(
    ("handlers", "told"),
    [
        ({}, "at least one.*there is none"),
        ({"a": _coroutine, "b": _plain}, "'a' is async def, 'b' is def"),
        ({"a": _coroutine, "b": 5}, "5 cannot be a handler"),
    ],
)
def test_handlers_that_do_not_go_together_are_refused(handlers: Any, told: str) -> None:
    with pytest.raises(TypeError, match=told):
        Worker("q", handlers)


@pytest.mark.any_server
def test_a_batch_has_jobs_of_any_name() -> None:
    with pytest.raises(ConfigError, match="batch takes one handler for jobs of any name"):
        Worker("q", {"a": _coroutine}, batch=2)
