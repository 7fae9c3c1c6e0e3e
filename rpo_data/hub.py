"""The Hugging Face Hub: files go up in one commit, a snapshot comes down; whatever goes wrong becomes one sentence.

A commit moves the branch from one whole version to the next, so a push that dies leaves the old one. What was uploaded before
is known to the Hub by its hash and not sent again. No token is taken, kept or shown here: huggingface_hub finds its own.
"""

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx2
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile

from rpo_data.errors import HubError

Files = Mapping[str, Path | bytes]
"""Content by path in the repository: a file on disk, or the bytes."""
Track = Callable[[str, int, int], None]
Pause = Callable[[float], None]
T = TypeVar("T")

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_KIND = "dataset"
_WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)
_TRANSIENT = {408, 429, 500, 502, 503, 504}
_BROKEN = (httpx2.TransportError, ConnectionError, TimeoutError)
_NOT_DATA = re.compile(r"\.gitattributes|\.gitignore|README\.md|LICENSE.*", re.IGNORECASE)


@dataclass(frozen=True)
class Target:
    """Where a push goes.

    repository  USER/NAME; it is created where it does not exist
    private     a new repository is private; an existing public one is refused
    branch      to commit to; it is created from main where it does not exist
    create_pr   open a pull request on main instead
    tag         put on the commit at the end
    """

    repository: str
    private: bool = False
    branch: str = "main"
    create_pr: bool = False
    tag: str | None = None


@dataclass(frozen=True)
class Version:
    """What a repository shall hold.

    files    content by path
    owned    paths that a push may write: one that is there and not in `files` is deleted, while other files stay
    message  of the commit
    """

    files: Files
    owned: re.Pattern[str]
    message: str


@dataclass(frozen=True)
class Pushed:
    """What a push did.

    commit        that holds the dataset now
    changed       files that were added, replaced or deleted; 0 where the Hub held them all
    pull_request  address of the pull request that holds the commit
    """

    commit: str
    changed: int
    pull_request: str | None = None


def is_repository(name: str) -> bool:
    """Whether a text reads as USER/NAME.

    >>> is_repository("user/name"), is_repository("a/b/c"), is_repository("../name"), is_repository("usér/name")
    (True, False, False, False)
    """
    return _NAME.fullmatch(name) is not None and "--" not in name and ".." not in name


def check_login(repository: str, pause: Pause = time.sleep) -> None:
    """Ask the Hub who we are, so that a missing token is known before an hour of work.

    Raises:
        HubError: it does not know us, or cannot be reached.
    """
    with explained(repository):
        patiently(HfApi().whoami, pause)


def push_files(
    target: Target,
    version: Version,
    *,
    track: Track = lambda stage, done, total: None,
    pause: Pause = time.sleep,
) -> Pushed:
    """Make a dataset repository hold a version, in one commit, and check that it does.

    Args:
        target: where to.
        version: what it shall hold.
        track: called with ("upload", bytes, all bytes).
        pause: waits some seconds before the next try.

    Raises:
        HubError: the Hub refuses or cannot be reached; the repository holds something else, or is public where private was
            asked; another push came between; the tag stands elsewhere; the Hub holds other bytes than were sent.
    """
    api, name = HfApi(), target.repository
    kept = f"; {name} holds its old version or the new one, as a whole, and what was uploaded is not sent again"
    with explained(name, kept):
        private = target.private or None  # an organisation may have a default of its own
        patiently(lambda: api.create_repo(name, repo_type=_KIND, private=private, exist_ok=True), pause)
        patiently(lambda: _check_repository(api, target), pause)
        if target.branch != "main":
            patiently(lambda: api.create_branch(name, repo_type=_KIND, branch=target.branch, exist_ok=True), pause)
            patiently(lambda: _check_content(name, _listing(api, name, target.branch)), pause)
        tagged = patiently(lambda: _tagged_commit(api, target), pause)
        pushed = _commit(api, target, version, tagged, track, pause)
        there = patiently(lambda: _listing(api, name, pushed.commit), pause)
        wrong = [path for path, content in version.files.items() if not _same(content, there.get(path))]
        if wrong:
            raise HubError(f"{name} does not hold {wrong[0]} as it was sent: push again")
        if target.tag and not tagged:
            tag, commit = target.tag, pushed.commit
            patiently(lambda: api.create_tag(name, repo_type=_KIND, tag=tag, revision=commit, exist_ok=True), pause)
    return pushed


def _check_repository(api: HfApi, target: Target) -> None:
    """Refuse to write over what is not ours, and to show what shall be private."""
    name = target.repository
    if target.private and not api.repo_info(name, repo_type=_KIND).private:
        raise HubError(
            f"{name} is public on the Hub, and --private was asked: make it private there, or choose a new name"
        )
    _check_content(name, _listing(api, name, "main"))


def _check_content(name: str, there: Mapping[str, RepoFile]) -> None:
    others = [path for path in there if not _NOT_DATA.fullmatch(path)]
    if others and not ("manifest.json" in there and any(path.startswith("groups/") for path in there)):
        raise HubError(f"{name} holds '{others[0]}' and no dataset of rpo-data: choose another name, or empty it first")


def _tagged_commit(api: HfApi, target: Target) -> str | None:
    """The commit that the tag stands on already."""
    if target.tag is None:
        return None
    tags = api.list_repo_refs(target.repository, repo_type=_KIND).tags
    return next((ref.target_commit for ref in tags if ref.name == target.tag), None)


def _commit(api: HfApi, target: Target, version: Version, tagged: str | None, track: Track, pause: Pause) -> Pushed:
    """Upload what the Hub does not hold, and commit all of it; a try after a lost answer finds that nothing is left."""
    name, begun = target.repository, []

    def attempt() -> Pushed:
        head = str(api.repo_info(name, repo_type=_KIND, revision=target.branch).sha)
        operations = _operations(version, _listing(api, name, head))
        begun.append((head, len(operations)))
        if tagged and (operations or tagged != head):
            raise HubError(f"tag '{target.tag}' of {name} stands on another version already: choose another --tag")
        if not operations:
            return Pushed(head, begun[0][1])
        if head != begun[0][0]:
            raise HubError(_MEANWHILE.format(name))
        if target.create_pr and (opened := _open_pull(api, name, version)):
            return opened if len(begun) == 1 else Pushed(opened.commit, begun[0][1], opened.pull_request)
        _upload(api, target, [op for op in operations if isinstance(op, CommitOperationAdd)], track)
        done = api.create_commit(
            name,
            operations,
            commit_message=version.message,
            repo_type=_KIND,
            revision=target.branch,
            parent_commit=head,
            create_pr=target.create_pr,
        )
        return Pushed(done.oid, len(operations), done.pr_url)

    return patiently(attempt, pause)


def _open_pull(api: HfApi, name: str, version: Version) -> Pushed | None:
    """An open pull request that would make the repository hold this version."""
    for pull in api.get_repo_discussions(
        name, repo_type=_KIND, discussion_type="pull_request", discussion_status="open"
    ):
        if pull.title == version.message:
            revision = f"refs/pr/{pull.num}"
            if not _operations(version, _listing(api, name, revision)):
                return Pushed(str(api.repo_info(name, repo_type=_KIND, revision=revision).sha), 0, pull.url)
    return None


def _upload(api: HfApi, target: Target, additions: Sequence[CommitOperationAdd], track: Track) -> None:
    """Send large files to the Hub's storage, one after the other; nobody sees them before the commit."""
    total, done = sum(addition.upload_info.size for addition in additions), 0
    for addition in additions:
        api.preupload_lfs_files(
            target.repository,
            [addition],
            repo_type=_KIND,
            revision=target.branch,
            create_pr=target.create_pr,
            free_memory=False,  # the card is read once more for the commit
        )
        done += addition.upload_info.size
        track("upload", done, total)


def _listing(api: HfApi, name: str, revision: str) -> dict[str, RepoFile]:
    entries = api.list_repo_tree(name, repo_type=_KIND, revision=revision, recursive=True)
    return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}


def _operations(version: Version, there: Mapping[str, RepoFile]) -> list[CommitOperationAdd | CommitOperationDelete]:
    """What a commit must do so that a repository with these entries holds the version."""
    added = [
        CommitOperationAdd(path, content if isinstance(content, bytes) else str(content))
        for path, content in version.files.items()
        if not _same(content, there.get(path))
    ]
    gone = sorted(path for path in there if path not in version.files and version.owned.fullmatch(path))
    return [*added, *(CommitOperationDelete(path) for path in gone)]


def _same(content: Path | bytes, there: RepoFile | None) -> bool:
    """Whether the Hub holds this content: it names large files by sha256 and others as git does, by a sha1 with the size."""
    if there is None:
        return False
    size = len(content) if isinstance(content, bytes) else content.stat().st_size
    if size != (there.lfs.size if there.lfs else there.size):
        return False
    digest = hashlib.sha256() if there.lfs else hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    if isinstance(content, bytes):
        digest.update(content)
    else:
        with content.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest() == (there.lfs.sha256 if there.lfs else there.blob_id)


def download(name: str, revision: str | None, patterns: Sequence[str], pause: Pause = time.sleep) -> Path:
    """The folder that holds the files of a dataset repository that match, all of one commit.

    Files are kept in huggingface_hub's cache and fetched once; offline the cache alone is read.

    Args:
        name: USER/NAME.
        revision: branch, tag or commit; main where not given.
        patterns: of paths.
        pause: waits some seconds before the next try.

    Raises:
        HubError: there is no such repository or revision, it may not be read, or the Hub cannot be reached.
    """

    def attempt() -> Path:
        return Path(snapshot_download(name, repo_type=_KIND, revision=revision, allow_patterns=list(patterns)))

    with explained(name):
        return patiently(attempt, pause, _WAITS[:3])


def commit_of(name: str, revision: str | None, pause: Pause = time.sleep) -> str:
    """The commit that a branch or tag of a dataset repository stands on; main where not given.

    Raises:
        HubError: there is no such repository or revision, it may not be read, or the Hub cannot be reached.
    """
    with explained(name):
        info = patiently(lambda: HfApi().repo_info(name, repo_type=_KIND, revision=revision), pause, _WAITS[:3])
    return str(info.sha)


def patiently(action: Callable[[], T], pause: Pause, waits: Sequence[float] = _WAITS) -> T:
    """Do something that may fail for a moment (429, 5xx, a broken connection) again after a while, each time longer."""
    for wait in waits:
        try:
            return action()
        except Exception as error:  # huggingface_hub wraps them in several kinds
            if not is_transient(error):
                raise
            pause(_asked_wait(error) or wait)
    return action()


def is_transient(error: BaseException) -> bool:
    """Whether the same request may go well a moment later."""
    for cause in _causes(error):
        if isinstance(cause, OfflineModeIsEnabled):  # a ConnectionError, by its base class
            return False
        if isinstance(cause, HfHubHTTPError):
            return cause.response.status_code in _TRANSIENT
        if isinstance(cause, (*_BROKEN, json.JSONDecodeError)):
            return True  # the last one: a proxy's page in place of an answer
    return False


def _asked_wait(error: BaseException) -> float | None:
    """The seconds that the Hub asks to wait for."""
    for cause in _causes(error):
        if isinstance(cause, HfHubHTTPError):
            asked = cause.response.headers.get("Retry-After", "")
            return min(float(asked), 300.0) if asked.isdigit() else None
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


_MEANWHILE = "{} changed on the Hub while this was uploaded: look at what came in, then push again"


@contextmanager
def explained(name: str, kept: str = "") -> Iterator[None]:
    """Turn whatever the Hub or the way there gives into one sentence about this repository.

    Args:
        name: of the repository.
        kept: what to say of it where the Hub stops answering.

    Raises:
        HubError: instead of any error of huggingface_hub; one of this machine's files stays what it is.
    """
    try:
        yield
    except (HfHubHTTPError, httpx2.HTTPError, OfflineModeIsEnabled, ValueError, RuntimeError, OSError) as error:
        if isinstance(error, OSError) and error.filename is not None and not is_transient(error):
            raise
        raise HubError(_sentence(name, error, kept)) from error


def _sentence(name: str, error: BaseException, kept: str) -> str:
    causes = list(_causes(error))
    if any(isinstance(cause, OfflineModeIsEnabled) for cause in causes):
        return f"{name} is on the Hub, and HF_HUB_OFFLINE is set: unset it"
    if is_transient(error):
        return f"the Hub does not answer as it should ({_said(error)}): run the same command again later{kept}"
    answer = next((cause for cause in causes if isinstance(cause, HfHubHTTPError)), None)
    status = answer.response.status_code if answer else 0
    if isinstance(answer, RevisionNotFoundError):
        return f"{name} has no such branch, tag or commit: look at its list of versions on the Hub"
    if isinstance(answer, RepositoryNotFoundError) or status == 404:
        return f"there is no dataset {name} on the Hub, or you may not read it: check the name, or log in with: hf auth login"
    if status == 401 or isinstance(error, LocalTokenNotFoundError):
        return "the Hub does not know you, or no longer accepts your token: log in with: hf auth login, then run this again"
    if status == 403:
        return f"you may not do this with {name} ({_said(error)}): use a token with write access to it"
    if status == 412:
        return _MEANWHILE.format(name)
    return f"the Hub refuses {name} ({_said(error)}): mend that, then run the same command again"


def _said(error: BaseException) -> str:
    """What an error says in short, without what may be secret."""
    answer = next((cause for cause in _causes(error) if isinstance(cause, HfHubHTTPError)), None)
    text = f"{answer.response.status_code} {answer.server_message or answer.response.reason_phrase}" if answer else ""
    if not answer or isinstance(error, ValueError):
        broken = (cause for cause in _causes(error) if isinstance(cause, _BROKEN))
        told = next(broken, error)  # what huggingface_hub says around it is long and of its own cache
        text = str(told) or type(told).__name__
    return re.sub(r"hf_\w+", "hf_...", " ".join(text.split())[:200])
