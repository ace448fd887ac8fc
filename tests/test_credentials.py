"""User and password that a function tells, at each connection."""

import asyncio
import gc
import logging
import subprocess
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from chasquimq import Queue, QueueEvent, QueueEvents, Worker, _credentials
from chasquimq.errors import AuthError, ConfigError
from conftest import StartServer
from support.server import Server
from working import eventually, eventually_async

SECRET = "hush-hush &%'\"="
WRONG = "hush-wrong"


class Safe:
    """Tells its password, and notes who asked; callable as ``def`` and as ``async def``."""

    def __init__(self, password: str) -> None:
        self.password = password
        self.threads: list[threading.Thread] = []

    def plain(self) -> tuple[str, str]:
        self.threads.append(threading.current_thread())
        return "app", self.password

    async def coroutine(self) -> tuple[str, str]:
        await asyncio.sleep(0.01)
        return self.plain()


@pytest.fixture
def guarded(start_server: StartServer) -> Server:
    """A server that lets only a user ``app`` in, whose password is ``SECRET``."""
    server = start_server(config={"requirepass": "admin"})
    set_password(server, SECRET)
    return server


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Functions have half a second."""
    monkeypatch.setattr(_credentials, "PATIENCE", 0.5)
    yield


def set_password(server: Server, password: str) -> None:
    server.command("ACL", "SETUSER", "app", "reset", "on", f">{password}", "~*", "&*", "+@all")


def kill_connections(server: Server) -> None:
    server.command("CLIENT", "KILL", "USER", "app")


def url(server: Server) -> str:
    return f"redis://127.0.0.1:{server.port}"


def told(error: BaseException) -> str:
    return repr(error) + "".join(traceback.format_exception(error))


async def adds(queue: Queue) -> bool:
    try:
        await queue.add("n", 1)
    except Exception:
        return False
    return True


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
async def test_a_password_that_changed_is_asked_for_again(
    guarded: Server, queue_name: str, kind: str
) -> None:
    safe, done, seen = Safe(SECRET), [], []
    options: dict[str, Any] = {"redis_url": url(guarded), "credentials": getattr(safe, kind)}

    async def handler(job: Any) -> None:
        done.append(job.data)

    def note(event: QueueEvent) -> None:
        seen.append(event.name)

    async with (
        Queue(queue_name, **options) as queue,
        QueueEvents(queue_name, **options) as events,
        Worker(queue_name, handler, **options),
    ):
        events.on("*", note)
        following = asyncio.create_task(events.run())
        await queue.add("n", 1)
        await eventually(lambda: done == [1] and "completed" in seen, "the first job")
        in_loop = {thread is threading.main_thread() for thread in safe.threads}
        assert in_loop == {kind == "coroutine"}
        before = len(safe.threads)
        set_password(guarded, "second")
        kill_connections(guarded)
        await eventually(lambda: len(safe.threads) > before, "it asks again")
        safe.password = "second"  # now: it was refused with the first
        await eventually_async(lambda: adds(queue), "jobs are accepted again")
        await eventually(lambda: len(done) > 1 and seen.count("completed") > 1, "and run")
    await following


async def test_one_queue_in_one_event_loop_after_the_other(
    guarded: Server, queue_name: str
) -> None:
    safe = Safe(SECRET)
    queue = Queue(queue_name, redis_url=url(guarded), credentials=safe.coroutine)
    await asyncio.to_thread(lambda: asyncio.run(queue.add("n", 1)))
    kill_connections(guarded)
    await queue.add("n", 2)
    assert len(safe.threads) > 1
    await queue.close()


async def test_the_older_name_with_its_parameter(guarded: Server, queue_name: str) -> None:
    asked = []

    async def provider(server: str | None) -> tuple[str | None, str]:
        asked.append(server)
        return None, "admin"

    async with Queue(queue_name, redis_url=url(guarded), credential_provider=provider) as queue:
        await queue.add("n", 1)
    assert asked == [None]
    with pytest.raises(ConfigError, match="mean the same"):
        Queue("q", credentials=provider, credential_provider=provider)


def _raises() -> Any:
    raise LookupError("the token service is away")


async def _raises_later() -> Any:
    await asyncio.sleep(0)
    raise LookupError("the token service is away")


async def _cancels_itself() -> Any:
    raise asyncio.CancelledError


def _exits() -> Any:
    sys.exit(3)


FAULTS: list[tuple[Callable[[], Any], str]] = [
    (_raises, "raised LookupError: the token service is away"),
    (_raises_later, "raised LookupError: the token service is away"),
    (_cancels_itself, "was cancelled"),
    (_exits, "raised SystemExit: 3"),
    (lambda: SECRET, r"returned str: it must return a user, or None, and a password"),
    (lambda: (1, SECRET), r"returned tuple of \(int, str\)"),
    (lambda: ("app", None), r"returned tuple of \(str, NoneType\)"),
    (lambda: ("app", SECRET, 1), r"returned tuple of \(str, str, int\)"),
    (lambda: ("app", SECRET + "\udc80"), "returned a text that is no Unicode"),
    (lambda: _raises_later(), "returned coroutine: .*async def"),
]


@pytest.mark.parametrize(("function", "text"), FAULTS)
async def test_what_went_wrong_is_said_and_the_next_call_asks_again(
    guarded: Server, queue_name: str, function: Callable[[], Any], text: str
) -> None:
    safe, faulty = Safe(SECRET), True

    def credentials() -> Any:
        return function() if faulty else safe.plain()

    async def awaited() -> Any:
        return await function() if faulty else safe.plain()

    given = awaited if asyncio.iscoroutinefunction(function) else credentials
    async with Queue(queue_name, redis_url=url(guarded), credentials=given) as queue:
        with pytest.raises(AuthError, match=f"(?s)the function given as credentials {text}") as why:
            await queue.add("n", 1)
        assert "hush" not in told(why.value)
        faulty = False
        await queue.add("n", 1)


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("is_async", [True, False])
async def test_a_function_that_hangs_is_given_up_and_asked_again(
    guarded: Server, queue_name: str, is_async: bool
) -> None:
    gate, calls = threading.Event(), []

    def plain() -> tuple[str, str]:
        calls.append(1)
        if len(calls) == 1:
            gate.wait(20)
        return "app", SECRET

    async def coroutine() -> tuple[str, str]:
        calls.append(1)
        if len(calls) == 1:
            await asyncio.sleep(20)
        return "app", SECRET

    given = coroutine if is_async else plain
    started = time.monotonic()
    async with Queue(queue_name, redis_url=url(guarded), credentials=given) as queue:
        with pytest.raises(AuthError, match=r"did not return within 0\.5 s: give what it waits"):
            await queue.add("n", 1)
        assert time.monotonic() - started < 3
        await queue.add("n", 1)
        assert len(calls) == 2
    gate.set()


@pytest.mark.usefixtures("hurried")
async def test_calls_that_hang_are_bounded(guarded: Server, queue_name: str) -> None:
    gate = threading.Event()

    def credentials() -> Any:
        gate.wait(20)
        return "app", SECRET

    def hanging() -> int:
        return sum(thread.name == "chasquimq-credentials" for thread in threading.enumerate())

    async with Queue(queue_name, redis_url=url(guarded), credentials=credentials) as queue:
        for _ in range(_credentials.MOST_CALLS):
            with pytest.raises(AuthError, match="did not return"):
                await queue.add("n", 1)
        with pytest.raises(AuthError, match="hangs in 4 calls"):
            await queue.add("n", 1)
        assert hanging() == _credentials.MOST_CALLS
        gate.set()
        await eventually(lambda: hanging() == 0, "the threads end")
        await queue.add("n", 1)


@pytest.mark.any_server
async def test_an_event_loop_that_is_blocked_holds_the_engine_up_for_no_longer_than_a_deadline(
    guarded: Server, queue_name: str
) -> None:
    safe = Safe(SECRET)
    async with Queue(queue_name, redis_url=url(guarded), credentials=safe.plain) as queue:
        adding = asyncio.create_task(queue.add("n", 1))
        await asyncio.sleep(0)
        time.sleep(11)
        with pytest.raises(AuthError, match="no event loop asked for them within 9 s"):
            await adding
        await queue.add("n", 1)


async def test_closing_does_not_wait_for_a_function_that_hangs(
    guarded: Server, queue_name: str
) -> None:
    asked = asyncio.Event()

    async def credentials() -> Any:
        asked.set()
        await asyncio.sleep(20)

    queue = Queue(queue_name, redis_url=url(guarded), credentials=credentials)
    adding = asyncio.create_task(queue.add("n", 1))
    await asked.wait()
    started = time.monotonic()
    await queue.close()
    with pytest.raises(Exception, match="was closed"):
        await adding
    assert time.monotonic() - started < 2


async def test_a_worker_that_is_not_let_in_says_so(guarded: Server, queue_name: str) -> None:
    async def handler(_: Any) -> None: ...

    worker = Worker(queue_name, handler, redis_url=url(guarded), credentials=_raises)
    with pytest.raises(AuthError, match="the token service is away"):
        await worker.run()
    with pytest.raises(AuthError, match="the token service is away"):
        await anext(QueueEvents(queue_name, redis_url=url(guarded), credentials=_raises))


async def test_no_secret_shows(
    guarded: Server, queue_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0.0
    safe = Safe(SECRET)

    async def provider() -> tuple[str, str]:
        shown.append(repr(asyncio.all_tasks()))
        return safe.plain()

    shown: list[str] = []
    for function in (safe.plain, provider):
        async with Queue(queue_name, redis_url=url(guarded), credentials=function) as queue:
            await queue.add("n", 1)
            shown.append(f"{queue!r} {queue._credentials!r} {vars(queue)} {asyncio.all_tasks()!r}")
    safe.password = WRONG
    with pytest.raises(AuthError) as why:
        await Queue(queue_name, redis_url=url(guarded), credentials=safe.plain).add("n", 1)
    shown += [told(why.value), caplog.text]
    assert "hush" not in "".join(shown)
    assert "Executing" in caplog.text


async def test_credentials_keep_no_queue_alive(guarded: Server, queue_name: str) -> None:
    safe = Safe(SECRET)
    queue = Queue(queue_name, redis_url=url(guarded), credentials=safe.coroutine)
    await queue.add("n", 1)
    gc.disable()
    try:
        gone = weakref.ref(queue), weakref.ref(queue._credentials)
        del queue
        await eventually(lambda: [ref() for ref in gone] == [None, None], "it is gone")
    finally:
        gc.enable()


@pytest.mark.any_server
@pytest.mark.parametrize("wrong", [("app", SECRET), SECRET, 1, lambda a, b: None])
def test_what_is_no_function_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"it must be an async def or def function") as why:
        Queue("q", credentials=wrong)
    assert "hush" not in str(why.value)


PROGRAM = """
import asyncio, os, sys
from chasquimq import Queue

url, name = sys.argv[1:]
credentials = lambda: ("app", os.environ["WORD"])
queue = Queue(name, redis_url=url, credentials=credentials)
asyncio.run(queue.add("n", 1))
pid = os.fork()
if pid == 0:
    del queue
    async def child():
        async with Queue(name, redis_url=url, credentials=credentials) as fresh:
            await fresh.add("n", 2)
    asyncio.run(child())
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
asyncio.run(queue.add("n", 3))

def hangs():
    import time
    time.sleep(60)

async def leave():
    task = asyncio.create_task(Queue(name, redis_url=url, credentials=hangs).add("n", 4))
    await asyncio.sleep(0.2)

asyncio.run(leave())
print("left")
"""


def test_a_child_asks_for_itself_and_no_call_holds_the_program_up(
    guarded: Server, queue_name: str
) -> None:
    program = [sys.executable, "-c", PROGRAM, url(guarded), queue_name]
    result = subprocess.run(
        program, capture_output=True, text=True, timeout=20, env={"WORD": SECRET}
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "left\n", "")
    assert guarded.command("XLEN", f"{{chasqui:{queue_name}}}:stream") == 3
