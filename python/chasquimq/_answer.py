"""``Answer``: a future whose waiter goes on at once."""

import asyncio
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any

Callback = Callable[["Answer"], object]


class Answer(asyncio.Future[Any]):
    """A future that is resolved by a callback of the event loop, and whose waiter goes on in that.

    Elsewhere a waiter goes on in the loop's next turn, which is a good part of what a lone add
    takes. The first who waits is called as the loop would call it, in its own context; all others,
    and all who wait for an error or are cancelled, take the usual way.
    """

    _waiter: tuple[Callback, Context] | None = None

    def add_done_callback(self, callback: Callback, /, *, context: Context | None = None) -> None:
        """Have this called when there is a result."""
        if self._waiter is None and not self.done():
            self._waiter = callback, copy_context() if context is None else context
        else:
            super().add_done_callback(callback, context=context)

    def remove_done_callback(self, callback: Callback, /) -> int:
        """Do not have this called; return how often it would have been."""
        self._go_the_usual_way()
        return super().remove_done_callback(callback)

    def cancel(self, msg: Any | None = None) -> bool:
        """Give it up; return whether that was possible."""
        self._go_the_usual_way()
        return super().cancel(msg)

    def set_exception(self, exception: type | BaseException, /) -> None:
        """End with an error."""
        self._go_the_usual_way()
        super().set_exception(exception)

    def set_result(self, result: Any, /) -> None:
        """End with a result, and have the waiter go on."""
        super().set_result(result)
        if self._waiter is None:
            return
        (callback, context), self._waiter = self._waiter, None
        try:
            context.run(callback, self)
        except BaseException as error:
            # Only what ends the loop comes here: the loop must raise it, not who resolves futures.
            self.get_loop().call_soon(_raise, error)

    def _go_the_usual_way(self) -> None:
        if self._waiter is not None:
            (callback, context), self._waiter = self._waiter, None
            super().add_done_callback(callback, context=context)


def _raise(error: BaseException) -> None:
    raise error
