"""The future of a lone add: its waiter goes on at once, and all else is as with any future."""

import asyncio
import contextvars
from collections.abc import Awaitable
from typing import Any

import pytest

from chasquimq._answer import Answer

pytestmark = pytest.mark.any_server

place = contextvars.ContextVar("place", default="nowhere")


def answer() -> Answer:
    return Answer(loop=asyncio.get_running_loop())


async def waiting(future: Awaitable[Any], seen: list[Any]) -> asyncio.Task[Any]:
    """Start a task that waits for the future, and have it come that far."""

    async def wait() -> Any:
        place.set("the task")
        try:
            seen.append(await future)
        except BaseException as error:
            seen.append(type(error))
            raise
        seen.append(place.get())
        return seen[-1]

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    return task


async def resolved(future: Answer, value: Any, seen: list[Any]) -> list[Any]:
    """Resolve it in a callback of the loop; return what had been seen when that was over."""
    before: list[Any] = []

    def resolve() -> None:
        future.set_result(value)
        before.extend(seen)

    asyncio.get_running_loop().call_soon(resolve)
    await asyncio.sleep(0)
    return before


async def test_the_waiter_goes_on_at_once_in_its_own_context() -> None:
    future, seen = answer(), list[Any]()
    task = await waiting(future, seen)
    assert await resolved(future, 5, seen) == [5, "the task"]
    assert await task == "the task"
    assert place.get() == "nowhere"


def test_the_waiter_goes_on_in_its_own_context_also_when_that_is_empty() -> None:
    async def main() -> None:
        future = answer()
        asyncio.get_running_loop().call_soon(future.set_result, 5)
        await future
        token = place.set("since")
        await asyncio.sleep(0)
        assert place.get() == "since"
        place.reset(token)
        assert place.get() == "nowhere"

    contextvars.Context().run(asyncio.run, main())


async def test_one_that_is_resolved_already_is_not_waited_for() -> None:
    future, seen = answer(), list[Any]()
    future.set_result(5)
    assert await asyncio.wait_for(future, 1) == 5
    assert await (await waiting(future, seen)) == "the task"


async def test_others_who_wait_are_told_too() -> None:
    future, seen = answer(), list[Any]()
    tasks = [await waiting(future, seen) for _ in range(3)]
    assert await resolved(future, 5, seen) == [5, "the task"]
    assert await asyncio.gather(*tasks) == ["the task"] * 3


async def test_errors_and_cancellations_reach_the_waiter() -> None:
    future, seen = answer(), list[Any]()
    task = await waiting(future, seen)
    future.set_exception(LookupError("none"))
    with pytest.raises(LookupError):
        await task

    future = answer()
    task = await waiting(future, seen)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert future.cancelled()

    future = answer()
    task = await waiting(future, seen)
    future.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == [LookupError, asyncio.CancelledError, asyncio.CancelledError]


async def test_a_time_limit_ends_the_wait() -> None:
    future = answer()
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(future, 0.01)
    assert future.cancelled()


async def test_a_callback_that_was_removed_is_not_called() -> None:
    future, seen = answer(), list[Any]()
    future.add_done_callback(seen.append)
    assert future.remove_done_callback(seen.append) == 1
    assert await resolved(future, 5, seen) == []
    await asyncio.sleep(0)
    assert seen == []


def test_an_exit_of_the_waiter_ends_the_loop_and_not_the_callback() -> None:
    async def main() -> None:
        async def leave(future: Answer) -> None:
            await future
            raise SystemExit(7)

        future, ended = answer(), list[str]()
        task = asyncio.create_task(leave(future))
        await asyncio.sleep(0)

        def resolve() -> None:
            future.set_result(None)
            ended.append("resolved")

        asyncio.get_running_loop().call_soon(resolve)
        try:
            await asyncio.sleep(60)
        finally:
            assert ended == ["resolved"]
            assert isinstance(task.exception(), SystemExit)

    with pytest.raises(SystemExit, match="7"):
        asyncio.run(main())
