"""Data to bytes and back: msgpack, in the form that any language reads."""

from typing import TYPE_CHECKING, Any

import msgspec

from .errors import DecodeError, EncodeError

if TYPE_CHECKING:
    from ._native import Job

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


def encode(data: object) -> bytes:
    """Encode data of a job.

    Raises ``EncodeError`` for what msgpack cannot hold.
    """
    try:
        return _encode(data)
    except Exception as error:  # msgspec lets errors of the data's own methods pass
        raise EncodeError(
            f"the data cannot be encoded as msgpack: {type(error).__name__}: {error}; use dicts, "
            "lists, strings, numbers, bytes, datetimes, dataclasses or msgspec structs"
        ) from error


def decode(payload: bytes) -> Any:
    """Decode data of a job.

    Raises ``DecodeError`` for bytes that are no msgpack.
    """
    try:
        return _decode(payload)
    except Exception as error:  # also UnicodeDecodeError and RecursionError
        raise DecodeError(f"the data of {len(payload)} bytes is no msgpack: {error}") from error


def _data(job: "Job") -> Any:
    """What the producer added, as ``Queue.add`` says, decoded at the first look."""
    data = job._kept()
    if data is None:
        data = decode(job._payload())
        job._keep(data)
    return data


job_data = property(_data)
"""``Job.data``; in Python because decoding may run Python code, which must not be below Rust."""
