"""Logs that are no local files: any URL that fsspec knows (s3, gs, az, hf, https, zip::..., ...).

Source: fsspec documentation, "URL chaining" and "Instance and Listing Caching".
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from glob import has_magic
from typing import Any, BinaryIO

from fsspec.core import url_to_fs

from rpo_data.errors import LogError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(://|::.*://)")
_ARCHIVES = ("zip", "tar", "libarchive")
_WEB = ("http", "https")


def is_url(log: str) -> bool:
    """True for a URL, chained ones too, whether its scheme is known or not."""
    return _URL.match(log) is not None


def file_link(url: str) -> str:
    """The link of a URL that names the file: without the archives and caches around it, and without a query.

    >>> file_link("zip://in/a.jsonl::https://host/x.zip?key=1")
    'zip://in/a.jsonl'
    """
    links = url.split("::")
    link = next((link for link in links if "://" in link), links[-1])
    return link.partition("?")[0] if link.startswith(_WEB) else link


def shown(text: str) -> str:
    """A URL, or a sentence that holds some, without what may be secret: credentials and queries.

    >>> shown("https://me:pass@host/a.jsonl?signature=1")
    'https://host/a.jsonl'
    """
    return re.sub(r"\?[^\s'\"()<>]*=[^\s'\"()<>]*", "", re.sub(r"//[^/@\s]*@", "//", text))


def path_parts(url: str) -> list[str]:
    """Host or bucket, folders and file name; of an archive, those of the archive before those inside it."""
    *links, last = shown(url).split("::")
    paths = [link.partition("://")[2] for link in links if "://" in link] + [last.partition("://")[2] or last]
    return [part for path in reversed(paths) for part in path.partition("?")[0].split("/") if part]


def name_below(url: str) -> str:
    """What a file is called: its path below the bucket or host, inside the archive.

    >>> name_below("s3://bucket/logs/a.jsonl")
    'logs/a.jsonl'
    """
    scheme, _, path = shown(file_link(url)).partition("://")
    host, _, below = path.partition("/")
    return (path if scheme in _ARCHIVES or not below else below).strip("/") or host


def list_folder(url: str) -> list[str] | None:
    """URLs of the files that a pattern matches, or of all files below a folder; None where it is neither.

    Raises:
        LogError: the place cannot be reached, or a package for it is not installed.
    """
    with explained(url):
        files, path = _filesystem(url)
        files.invalidate_cache()  # a listing from before may be out of date
        if has_magic(file_link(url)):
            found = files.glob(path, detail=True)
        elif file_link(url).startswith(_WEB):
            return None
        elif files.info(path)["type"] == "directory":
            found = files.find(path, detail=True)
        else:
            return None
        return sorted(_url_of(url, path, name, files) for name, info in found.items() if info["type"] == "file")


def _filesystem(url: str) -> tuple[Any, str]:
    # an archive that is kept open would hide that it was written anew
    return url_to_fs(url, skip_instance_cache="::" in url)


def _url_of(url: str, path: str, name: str, files: Any) -> str:
    """The URL of a file that was found, with host, credentials and chained links as in the URL that was asked for."""
    link = file_link(url)
    plain = link if link.endswith("://") else link.rstrip("/")
    found = plain[: len(plain) - len(path)] + name if plain.endswith(path) else files.unstrip_protocol(name)
    return url.replace(link, found, 1)


@contextmanager
def open_remote(url: str) -> Iterator[tuple[BinaryIO, bool]]:
    """A buffered stream of a file's bytes, and whether it can seek.

    Raises:
        LogError: the file cannot be opened, or the connection breaks while it is read.
    """
    with explained(url):
        files, path = _filesystem(url)
        web = "https" in files.protocol
        # not every server gives a part of a file, but each gives it from the start
        file = files.open(path, "rb", **({"block_size": 0} if web else {}))
    with file, io.BufferedReader(_Explained(file, url), 1 << 20) as stream:
        yield stream, not web and file.seekable()


class _Explained(io.RawIOBase):
    """A remote file whose errors are sentences: whatever kind its library raises."""

    def __init__(self, file: Any, url: str) -> None:
        self._file, self._url = file, url

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._file.seekable())

    def seek(self, offset: int, whence: int = 0) -> int:
        with explained(self._url):
            return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def readinto(self, buffer: Any) -> int:
        with explained(self._url):
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


@contextmanager
def explained(url: str) -> Iterator[None]:
    """Turn whatever goes wrong with a URL into one sentence.

    Raises:
        LogError: anything was raised inside.
    """
    try:
        yield
    except LogError:
        raise
    except ImportError as error:
        package = getattr(error.__cause__, "name", None) or error.name or "a package"
        raise LogError(f"{shown(url)} needs {package}, which is not installed: pip install {package}") from error
    except PermissionError as error:
        raise LogError(f"{shown(url)} may not be read: check your credentials") from error
    except Exception as error:  # each file system has its own
        cause = error.__cause__ if isinstance(error, FileNotFoundError) else None  # of the web's, it says more
        if isinstance(cause or error, FileNotFoundError) or getattr(cause, "status", None) == 404:
            raise LogError(f"{shown(url)} does not exist: check its spelling, and that you may read it") from error
        first_line = shown(str(cause or error).strip().split("\n", 1)[0]) or type(cause or error).__name__
        raise LogError(
            f"{shown(url)} cannot be read ({first_line}): check the address, the connection and your credentials"
        ) from error
