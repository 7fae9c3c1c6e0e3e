"""What the small Hub holds: repositories with commits, branches, tags and pull requests, as plain data in memory."""

import copy
import hashlib
import json
import threading
from dataclasses import dataclass, field


class Refused(Exception):
    """An answer that is an error: status, X-Error-Code (or none), message."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


@dataclass(frozen=True)
class File:
    """A file of a commit: the bytes of a small one, the sha256 of one in large storage."""

    size: int
    sha256: str
    content: bytes | None  # None: it lies in large storage

    @property
    def oid(self) -> str:
        """Git's name of the file, for a large one of the pointer that stands for it."""
        content = self.content if self.content is not None else self.pointer
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    @property
    def pointer(self) -> bytes:
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {self.size}\n".encode()

    def entry(self, path: str) -> dict:
        """The file as the tree of a repository lists it."""
        entry = {"type": "file", "path": path, "size": self.size, "oid": self.oid}
        if self.content is None:
            entry["lfs"] = {"oid": self.sha256, "size": self.size, "pointerSize": len(self.pointer)}
        return entry


Tree = dict[str, File]


def small_file(content: bytes) -> File:
    return File(len(content), hashlib.sha256(content).hexdigest(), content)


def commit_name(parent: str, tree: Tree, title: str) -> str:
    content = json.dumps([parent, title, sorted((path, file.oid) for path, file in tree.items())])
    return hashlib.sha1(content.encode()).hexdigest()


@dataclass
class Repository:
    """One dataset; a commit is a whole tree, so a reader sees all of a commit or nothing of it."""

    private: bool = False
    commits: dict[str, Tree] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)  # refs/heads/main, refs/tags/v1, refs/pr/1 -> commit
    pulls: list[str] = field(default_factory=list)  # titles; number 1 is the first

    def __post_init__(self) -> None:
        self.add("refs/heads/main", "", {".gitattributes": small_file(b"*.parquet filter=lfs\n")}, "initial commit")

    def add(self, ref: str, parent: str, tree: Tree, title: str) -> str:
        name = commit_name(parent, tree, title)
        self.commits[name], self.titles[name] = tree, title
        self.refs[ref] = name
        return name

    def resolve(self, revision: str) -> str:
        """The commit of a branch, tag, pull request or (short) commit name."""
        for ref in (f"refs/heads/{revision}", f"refs/tags/{revision}", revision):
            if ref in self.refs:
                return self.refs[ref]
        found = [name for name in self.commits if len(revision) >= 7 and name.startswith(revision)]
        if len(found) != 1:
            raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return found[0]

    def tree(self, revision: str = "main") -> Tree:
        return self.commits[self.resolve(revision)]


@dataclass
class State:
    """Everything the Hub knows; one lock, so that each request is answered as a whole."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    storage: dict[str, bytes] = field(default_factory=dict)  # large files by sha256
    parts: dict[str, dict[int, bytes]] = field(default_factory=dict)  # of a large file on its way
    tokens: dict[str, str] = field(default_factory=dict)  # token -> user
    lock: threading.RLock = field(default_factory=threading.RLock)

    def repository(self, name: str, user: str | None) -> Repository:
        found = self.repositories.get(name)
        if found is None or (found.private and user is None):
            raise Refused(404 if user else 401, "RepoNotFound", "Repository not found")
        return found

    def content(self, file: File) -> bytes:
        return self.storage[file.sha256] if file.content is None else file.content

    def copy(self) -> "State":
        """The same content, which changes to the first do not reach."""
        return State(copy.deepcopy(self.repositories), dict(self.storage), dict(self.parts), dict(self.tokens))

    def files(self, name: str, revision: str = "main") -> dict[str, bytes]:
        """What a repository holds at a revision: bytes by path."""
        tree = self.repositories[name].tree(revision)
        return {path: self.content(file) for path, file in tree.items()}
