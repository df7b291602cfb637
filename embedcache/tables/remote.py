"""Tables at an address that fsspec knows: hf://, s3://, gs://, https:// and others. Each is read once, into a copy."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from embedcache.errors import EmbedcacheError

ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")


def is_address(name: object) -> bool:
    """Whether a name is an address, such as s3://bucket/reviews.csv, and not a path."""
    return isinstance(name, str) and ADDRESS.fullmatch(name) is not None


def file_name(address: str) -> str:
    """The last part of an address, by whose suffix its format is known."""
    parts = urlsplit(address)
    return (parts.path if parts.scheme in ("http", "https") else parts.netloc + parts.path).rpartition("/")[2]


def expanded(name: Any) -> list[Any]:
    """All addresses that a pattern means, in order: hf://datasets/user/reviews/*.parquet; others as they are.

    Raises:
        EmbedcacheError: nothing is there, or it cannot be listed.
    """
    if not is_address(name) or not any(one in file_name(name) for one in "*["):
        return [name]
    with _in_words(name):
        import fsspec

        system, path = fsspec.core.url_to_fs(name)
        found = [system.unstrip_protocol(one) for one in sorted(system.glob(path))]
    if not found:
        raise EmbedcacheError(f"{name}: nothing is there: check the address")
    return found


@contextmanager
def opened(address: str) -> Iterator[Any]:
    """Its bytes, as a binary file.

    Raises:
        EmbedcacheError: the package for such addresses is not installed, there is nothing, or it cannot be read.
    """
    with _in_words(address):
        import fsspec

        with fsspec.open(address, "rb") as file:
            yield _Read(file, address)


class _Read:
    """A file whose errors are told apart from those of the copy that is made of it."""

    def __init__(self, file: Any, address: str) -> None:
        self._file, self._address = file, address

    def read(self, size: int) -> bytes:
        with _in_words(self._address):
            return bytes(self._file.read(size))


@contextmanager
def _in_words(address: str) -> Iterator[None]:
    """What a file system of fsspec raises may be of any kind: it becomes one line."""
    scheme = address.partition(":")[0]
    try:
        yield
    except EmbedcacheError:
        raise
    except FileNotFoundError:
        raise EmbedcacheError(f"{address}: nothing is there: check the address, and that you may read it") from None
    except ImportError as error:
        needed = re.search(r"nstall (\w+)", str(error))
        package = needed[1] if needed else "fsspec"
        if scheme in ("http", "https"):
            package = "aiohttp"
        raise EmbedcacheError(f"{address}: {scheme}:// needs a package: pip install {package}") from None
    except ValueError as error:
        if "rotocol" not in str(error):
            raise _unreadable(address, error) from None
        raise EmbedcacheError(
            f"{address}: fsspec knows no addresses that begin with {scheme}://: save the file here and name that"
        ) from None
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise _unreadable(address, error) from None
    except Exception as error:
        raise _unreadable(address, error) from None


def _unreadable(address: str, error: Exception) -> EmbedcacheError:
    said = " ".join(str(error).split()) or type(error).__name__
    return EmbedcacheError(f"{address}: cannot be read ({said[:200]}): check the address and your access to it")
