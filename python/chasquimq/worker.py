"""``Worker``: runs a handler on the jobs of a queue."""

import asyncio
from collections.abc import Mapping
from types import TracebackType

from ._address import locate
from ._credentials import Credentials, asked, native
from ._handlers import BatchHandler, Handler, Handlers, are_async, by_name, is_async
from ._native import Consumer
from ._options import (
    check_optional_text,
    check_seconds,
    check_text,
    naturals,
    positives,
    refuse,
    socket_address,
)
from ._session import Session
from .errors import ConfigError, ShutdownError

__all__ = ["Worker"]

CLOSE_SECONDS = 30.0
"""How long ``close`` lets running jobs finish when it is not told."""

LONGEST_WAIT = 3600
"""Seconds that a job may wait for its batch to be full, at most."""


class Worker:
    """Runs ``handler`` on the jobs of a queue.

    An ``async def`` handler runs in the event loop, a plain ``def`` in threads, at most
    ``concurrency`` at a time (default 100). A job whose handler returns is done; one whose handler
    raises is run again, up to ``max_attempts`` runs in all (default 25), or not at all after
    ``UnrecoverableError``. The logger ``chasquimq.jobs`` tells of each failed run, at WARNING, and
    of each dead job, at ERROR. Consecutive jobs may share an asyncio task, but not context
    variables.

    ``{"greet": greet, "pay": pay}`` in the place of the handler has one for each name of a job. A
    job of another name fails like one whose handler raises: it is run again, maybe by a newer
    worker.

    ====================== ========================================================== =========
    parameter              meaning                                                    default
    ====================== ========================================================== =========
    redis_url, tls         the server, found as by ``Queue``
    credentials            a function for user and password, as of ``Queue``          the URL's
    group                  the consumer group; a queue has one                        "default"
    consumer_id            this worker's name in the group                            random
    read_block_ms          how long one read waits for work                           5000
    read_count             entries asked for in one read                              256
    claim_min_idle_ms      the lease: how long a dead worker keeps its jobs           30,000
    max_payload_bytes      larger data are not accepted                               1 MiB
    dlq_max_stream_len     dead jobs kept                                             all
    events_enabled         publish to the events stream                               True
    events_verbose         publish ``active`` and ``promoted`` too                    False
    delayed_enabled        may promote delayed jobs                                   True
    prefetch               jobs held ready for the next free slot                     20 ms' work
    max_lost               deliveries whose worker died, before a job is given up     3
    job_timeout            seconds that one run may take; then it counts as failed    no limit
    metrics_addr           where this process shows its metrics                       nowhere
    batch                  jobs in one call of the handler, at most                   no batches
    batch_wait             seconds that the first job of a batch waits for more       0.05
    consumer_max_idle_secs silence after which an idle worker is forgotten; 0: never  3600
    ====================== ========================================================== =========

    A coroutine is cancelled at ``job_timeout``. A thread cannot be: its job counts as failed, the
    late end does not count, and another thread takes its place.

    With ``batch=100`` the handler is called with a list of 1 to 100 jobs; ``concurrency`` then
    counts calls, and ``job_timeout`` bounds a call. Each job is settled on its own. When the
    handler returns, all are done, unless it returns a list of one outcome a job, in their order:
    those in whose place there is an exception have failed of it. So a handler may end with
    ``return await asyncio.gather(*map(send, jobs), return_exceptions=True)``. When it raises, all
    have failed; each is retried by its own rule.

    ``metrics_addr="127.0.0.1:9090"`` starts a server, in Rust, with ``/metrics`` for Prometheus,
    ``/livez``, ``/readyz`` and ``/scale?queue=…``. All workers of a process that name the same
    address share it; it ends with the last of them. Without a host it is 127.0.0.1, and
    ``0.0.0.0:9090`` is seen from outside. Each process of a host needs a port of its own, or port
    0: any free one, which the log and ``metrics_addr`` tell. A port that another process has raises
    ``MetricsAddressError`` when the worker starts.
    """

    def __init__(
        self,
        queue_name: str,
        handler: Handler | BatchHandler | Handlers,
        *,
        redis_url: str | None = None,
        tls: bool = False,
        concurrency: int = 100,
        max_attempts: int = 25,
        group: str = "default",
        consumer_id: str | None = None,
        read_block_ms: int | None = None,
        read_count: int | None = None,
        claim_min_idle_ms: int | None = None,
        max_payload_bytes: int | None = None,
        dlq_max_stream_len: int | None = None,
        events_enabled: bool = True,
        events_verbose: bool = False,
        delayed_enabled: bool = True,
        prefetch: int | None = None,
        max_lost: int | None = None,
        job_timeout: float | None = None,
        metrics_addr: str | None = None,
        batch: int | None = None,
        batch_wait: float = 0.05,
        run_scheduler: bool = False,
        scheduler_tick_ms: int | None = None,
        store_results: bool = False,
        result_ttl_ms: int | None = None,
        consumer_max_idle_secs: int | None = None,
        credentials: Credentials | None = None,
        credential_provider: Credentials | None = None,
    ) -> None:
        refuse(
            run_scheduler=run_scheduler,
            scheduler_tick_ms=scheduler_tick_ms,
            store_results=store_results,
            result_ttl_ms=result_ttl_ms,
        )
        naturals(
            concurrency=concurrency,
            max_attempts=max_attempts,
            claim_min_idle_ms=claim_min_idle_ms,
            max_payload_bytes=max_payload_bytes,
            dlq_max_stream_len=dlq_max_stream_len,
            prefetch=prefetch,
            max_lost=max_lost,
            consumer_max_idle_secs=consumer_max_idle_secs,
        )
        positives(read_block_ms=read_block_ms, read_count=read_count, batch=batch)
        check_text(queue_name=queue_name, group=group)
        check_optional_text(redis_url=redis_url, consumer_id=consumer_id)
        socket_address("metrics_addr", metrics_addr)
        if job_timeout is not None:
            check_seconds("job_timeout", job_timeout)
            if job_timeout in (0, float("inf")):
                raise ConfigError(f"job_timeout is {job_timeout}; leave it out for no limit")
        check_seconds("batch_wait", batch_wait, LONGEST_WAIT)
        self._name = queue_name
        if isinstance(handler, Mapping):
            if batch is not None:
                raise ConfigError("batch takes one handler for jobs of any name, not one a name")
            self._in_threads = not are_async(handler)
            handler = by_name(handler)
        else:
            self._in_threads = not is_async(handler)
        self._handler = handler
        self._in_batches = batch is not None
        self._concurrency = concurrency
        self._job_timeout = job_timeout
        self._credentials = asked(credentials, credential_provider)
        self._consumer = Consumer(
            locate(redis_url, tls),
            {
                "queue_name": queue_name,
                "group": group,
                "concurrency": concurrency,
                "max_attempts": max_attempts,
                "events_enabled": events_enabled,
                "events_verbose": events_verbose,
                "delayed_enabled": delayed_enabled,
                "consumer_id": consumer_id,
                "read_block_ms": read_block_ms,
                "read_count": read_count,
                "claim_min_idle_ms": claim_min_idle_ms,
                "max_payload_bytes": max_payload_bytes,
                "dlq_max_stream_len": dlq_max_stream_len,
                "prefetch": prefetch,
                "max_lost": max_lost,
                "metrics_addr": metrics_addr,
                "batch": batch,
                "batch_wait_ms": round(batch_wait * 1000),
                "consumer_max_idle_secs": consumer_max_idle_secs,
                "credentials": native(self._credentials),
            },
        )
        self._session: Session | None = None
        self._closed = False
        self._background: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """The queue's name."""
        return self._name

    @property
    def consumer_id(self) -> str:
        """This worker's name in the consumer group."""
        return self._consumer.consumer_id

    @property
    def metrics_addr(self) -> str | None:
        """Where its metrics are; with the real port once it has started."""
        return self._consumer.metrics_addr

    @property
    def is_running(self) -> bool:
        """Whether it takes jobs."""
        return self._session is not None and not self._session.is_closing

    @property
    def is_closed(self) -> bool:
        """Whether it has ended for good."""
        return self._closed or (self._session is not None and self._session.ended.done())

    async def run(self) -> None:
        """Run jobs until ``close`` has ended; further callers wait for the same.

        Cancelling it closes the worker with a timeout of 0: running coroutines are cancelled, and
        their jobs go back with the attempt unchanged. SIGTERM and SIGINT are the program's.

        Raises the errors of the connection when it cannot start; once started it goes on through
        every fault of the server and the network. When a handler raises KeyboardInterrupt, the
        worker stops at once, its jobs go back and this raises it. SystemExit in a handler is an
        error like any other; in a task that a handler made, asyncio ends the event loop with it.
        """
        await self._wait_until_ended(await self._open())

    async def close(self, timeout: float | None = None) -> None:
        """End within ``timeout`` seconds (default 30) plus one.

        Jobs that have not started go back at once. Running ones may finish until then; after that
        coroutines are cancelled, threads left to themselves, and their jobs go back, attempt
        unchanged. Returns when nothing runs any more; called from a handler, at once.

        Raises ``ConfigError`` for a ``timeout`` that is none, and ``ChasquiError`` in another event
        loop than that of ``run``: the worker goes on.
        """
        seconds = CLOSE_SECONDS if timeout is None else timeout
        check_seconds("timeout", seconds)
        if self._session is None:
            self._closed = True
            return
        if self._session.ended.done():
            return
        self._session.check_loop()
        ending = self._session.close(seconds)
        if not self._session.is_handler(asyncio.current_task()):
            await asyncio.shield(ending)

    async def __aenter__(self) -> "Worker":
        session = await self._open()
        self._background = asyncio.create_task(self._wait_until_ended(session))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
        if self._background is not None:
            await asyncio.wait([self._background])
            if not self._background.cancelled() and kind is None:
                self._background.result()

    def __repr__(self) -> str:
        return f"Worker({self._name!r})"

    async def _open(self) -> Session:
        self._consumer.check()
        if self._session is not None and not self.is_closed:
            self._session.check_loop()
            return self._session
        if self.is_closed:
            raise ShutdownError(f"the worker of queue {self._name!r} is closed: make a new one")
        session = self._session = Session(
            self._name,
            self._consumer,
            self._handler,
            in_threads=self._in_threads,
            in_batches=self._in_batches,
            concurrency=self._concurrency,
            job_timeout=self._job_timeout,
        )
        try:
            await session.open()
        except asyncio.CancelledError:
            await asyncio.shield(session.close(0))
            raise
        except ShutdownError:
            if not session.is_closing:
                raise
        except BaseException as error:
            self._session = None
            session.fail(error)
            raise
        return session

    async def _wait_until_ended(self, session: Session) -> None:
        try:
            await asyncio.shield(session.ended)
        except asyncio.CancelledError:
            await asyncio.shield(session.close(0))
            raise
        if session.fatal is not None:
            raise session.fatal
