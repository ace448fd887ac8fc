"""The engine. Every call that takes a mailbox and a ticket returns at once and answers there.

One that takes a waiter is carried out while that waits.
All of them raise ``ChasquiError`` in a child that was forked after the object was made.
"""

from typing import Any, final

from ._address import Address
from ._types import Choice, ConsumerOptions, FollowOptions, ProducerOptions, Reply, Row

__all__ = [
    "Added",
    "Consumer",
    "Credentials",
    "Job",
    "Mailbox",
    "Producer",
    "Tail",
    "Waiter",
    "drain_log",
    "run_cli",
    "set_log_levels",
    "version",
    "without_ids",
]

def drain_log() -> list[tuple[int, str, str]]:
    """Fetches the lines that have come: level, target, text."""

def run_cli(argv: list[str], server_binaries: list[str], python: str) -> int:
    """Runs a command line (the program's name first); returns its exit code."""

def set_log_levels(engine: int, jobs: int) -> None:
    """Keeps lines of these levels of Python's ``logging`` and above.

    ``jobs`` is that of lines about failed and dead jobs, ``engine`` that of all others.
    """

def version() -> str:
    """The version of the package and of the engine in it."""

def without_ids(rows: list[Row], created_at_ms: int) -> list[Job]:
    """The jobs of these rows, which ``Added.jobs`` gives their ids."""

@final
class Added:
    """What became of added jobs."""

    def jobs(self, jobs: list[Job]) -> list[Job | BaseException]:
        """This list, once: the jobs with their ids, or errors in the place of those not added."""

@final
class Consumer:
    """Takes jobs from one queue, and their endings back. A mailbox is told when there are any."""

    def __new__(cls, address: Address, options: ConsumerOptions) -> Consumer: ...
    @property
    def consumer_id(self) -> str:
        """This consumer's name in the group."""
    @property
    def metrics_addr(self) -> str | None:
        """Where its metrics are: as it was asked for, and the real address once it has started."""
    def check(self) -> None:
        """Raises in a forked child."""
    def start(self, mailbox: Mailbox, ticket: int) -> None:
        """Connects and answers; from then on notices come under the same ticket."""
    def next(self) -> Job | None:
        """The next job for a free slot; ``None`` when a notice will come."""
    def next_batch(self) -> list[Job] | None:
        """The next jobs for a handler of batches; ``None`` when a notice will come."""
    def look(self) -> bool:
        """Whether there is work for another free slot; if not, a notice will come."""
    def finish(self, job: Job, _returned: object) -> bool:
        """A job is done, whatever its handler returned; ``False`` when it was settled before."""
    def finish_batch(self, jobs: list[Job]) -> int:
        """Jobs of a batch are done; how many of them were not settled before."""
    def settle(
        self, done: list[Job], failed: list[tuple[Job, str, bool]], released: list[Job]
    ) -> int:
        """Hands over all endings, and what was finished.

        These are jobs done, (job, error text, unrecoverable) failed, and jobs handed back. Returns
        how many count: a job that was settled before is passed over.
        """
    def stop(self) -> None:
        """Takes no more jobs; those that Python has not fetched go back."""
    def close(self, mailbox: Mailbox, ticket: int, grace_ms: int) -> None:
        """Stops, stores what was settled within the grace, disconnects; answers the report."""
    def last_error(self) -> str | None:
        """The last fault of reading, until a read works again."""

@final
class Credentials:
    """The questions about one queue's, worker's or subscriber's login.

    The mailbox is told of them; without, that of the last call.
    """

    def __new__(cls, number: int, mailbox: Mailbox | None = None, /) -> Credentials: ...
    def answer(self, user: str | None, password: str) -> None:
        """Answers all questions that wait. From any thread."""
    def refuse(self, why: str) -> None:
        """Tells all who wait why there is no answer. From any thread."""

@final
class Job:
    """A job, as its handler receives it and as ``Queue.add`` returns it.

    Tests may make one: ``Job("1", "greet", {"name": "Ada"})``.
    """

    def __new__(
        cls,
        id: str,
        name: str,
        data: Any,
        *,
        attempt: int = 0,
        lost: int = 0,
        created_at_ms: int = 0,
    ) -> Job: ...
    @property
    def id(self) -> str:
        """The caller's id or a ULID."""
    @property
    def name(self) -> str:
        """The name it was added with."""
    @property
    def data(self) -> Any:
        """What the producer added, as ``Queue.add`` says, decoded at the first look.

        Of a job that ``add`` has returned, the very object that was given.

        Raises ``DecodeError`` for bytes that are no msgpack.
        """
    @property
    def attempt(self) -> int:
        """Failed runs so far: 0 in the first run."""
    @property
    def attempts_made(self) -> int:
        """The same as ``attempt``."""
    @property
    def lost(self) -> int:
        """Deliveries so far whose worker died."""
    @property
    def created_at_ms(self) -> int:
        """When the producer made it, in milliseconds since the epoch."""
    def _payload(self) -> bytes:
        """The encoded data."""
    def _kept(self) -> Any:
        """The data that ``_keep`` was given first."""
    def _keep(self, data: Any) -> None:
        """Keeps the decoded data."""
    def _finish(self, jobs: int = 1) -> None:
        """Stops the stopwatch; so many jobs have shared the time."""

@final
class Mailbox:
    """The mailbox of one event loop."""

    def __new__(cls) -> Mailbox: ...
    def fileno(self) -> int:
        """Readable when there is something to drain."""
    def watch(self) -> int:
        """An epoll for what the loop waits at: ``Waiter.wait_idly`` ends when it is ready."""
    def drain(
        self,
    ) -> tuple[
        list[tuple[int, Reply, BaseException | None]],
        list[tuple[int, bool]],
        list[int],
        list[tuple[int, str, str]],
    ]:
        """Fetches everything: replies, notices, credentials, log lines (level, target, text).

        Credentials that are asked for are told by their numbers. A notice is a worker's ticket and
        whether it has ended.
        """

@final
class Producer:
    """Adds jobs to one queue. Connects at the first call; every call answers its caller."""

    def __new__(cls, address: Address, options: ProducerOptions) -> Producer: ...
    def add(
        self, caller: Mailbox | Waiter, ticket: int, rows: list[Row], pack: int | None = None, /
    ) -> None:
        """Adds jobs; answers what became of them.

        With ``pack`` they are those of one caller, and so many share an entry: they have the first
        error in common. Without, each has its own.
        """
    def cancel_delayed(self, caller: Mailbox | Waiter, ticket: int, job_id: str) -> None:
        """Takes a delayed job back; answers whether there was one."""
    def peek_dlq(self, caller: Mailbox | Waiter, ticket: int, limit: int, choice: Choice) -> None:
        """Answers the oldest dead jobs of those chosen."""
    def replay_dlq(self, caller: Mailbox | Waiter, ticket: int, limit: int, choice: Choice) -> None:
        """Sends the oldest dead jobs of those chosen back; answers how many."""
    def purge_dlq(self, caller: Mailbox | Waiter, ticket: int, limit: int, choice: Choice) -> None:
        """Deletes the oldest dead jobs of those chosen; answers how many."""
    def close(self, caller: Mailbox | Waiter, ticket: int) -> None:
        """Closes the connection."""

@final
class Tail:
    """Follows the events of one queue. Connects at the first call; all answer in a mailbox."""

    def __new__(cls, address: Address, options: FollowOptions) -> Tail: ...
    def check(self) -> None:
        """Raises in a forked child."""
    def open(self, mailbox: Mailbox, ticket: int) -> None:
        """Connects; answers the id after which it follows."""
    def read(self, mailbox: Mailbox, ticket: int) -> None:
        """Waits for events and answers them; none when it is closed."""
    def close(self, mailbox: Mailbox, ticket: int) -> None:
        """Closes the connection."""

@final
class Waiter:
    """Takes the reply of one call, for a thread that waits for it, or the loop of this mailbox."""

    def __new__(cls, mailbox: Mailbox | None = None, /) -> Waiter: ...
    def wait(self, ms: int) -> tuple[Reply] | None:
        """Waits so long for the reply, or raises its error; ``None`` when the time is over."""
    def wait_idly(self, ticket: int, seconds: float) -> tuple[Reply] | None:
        """As ``wait``, but no longer than the mailbox's loop has nothing to do.

        After ``None`` the mailbox gets the reply, under this ticket.
        """
