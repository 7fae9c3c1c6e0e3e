"""What needs no Hub: names, what is tried again, how long is waited, and which sentence an error becomes."""

import json
import re

import httpx2
import pytest
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import RepoFile

from rpo_data import load
from rpo_data.errors import HubError
from rpo_data.hub import Target, Version, _same, download, explained, is_repository, is_transient, patiently, push_files


def http_error(status: int, **headers: str) -> HfHubHTTPError:
    response = httpx2.Response(status, headers=headers, request=httpx2.Request("GET", "http://hub"))
    return HfHubHTTPError(f"error {status}", response=response, server_message=None)


@pytest.mark.parametrize("name", ["user/name", "a-b.c/D_e.f", "1/2"])
def test_names_on_the_hub(name):
    assert is_repository(name)


@pytest.mark.parametrize(
    "name", ["name", "a/b/c", "./a", "../a", "/a/b", "a/", "a b/c", "a/b--c", "a/..", "~/x", "", "usér/name"]
)
def test_what_is_no_name_on_the_hub(name):
    assert not is_repository(name)


@pytest.mark.parametrize(
    ("error", "transient"),
    [(http_error(status), True) for status in (408, 429, 500, 502, 503, 504)]
    + [(http_error(status), False) for status in (400, 401, 403, 404, 409, 412, 501)]
    + [(httpx2.ConnectError("x"), True), (httpx2.ReadTimeout("x"), True), (httpx2.RemoteProtocolError("x"), True)]
    + [(json.JSONDecodeError("x", "<html>", 0), True), (ConnectionResetError(), True), (ValueError("x"), False)],
)  # fmt: skip
def test_what_may_go_well_a_moment_later(error, transient):
    assert is_transient(error) is transient
    wrapped = RuntimeError("Error while uploading")
    wrapped.__cause__ = error
    assert is_transient(wrapped) is transient


def test_a_broken_way_is_said_in_its_own_words():
    """huggingface_hub wraps it in a paragraph on its cache."""
    wrapped = ValueError("Got: ConnectError. An error happened while trying to locate the files on the Hub " * 5)
    wrapped.__cause__ = httpx2.ConnectError("[Errno -2] Name or service not known")
    with pytest.raises(HubError) as told, explained("me/data"):
        raise wrapped
    assert str(told.value) == (
        "the Hub does not answer as it should ([Errno -2] Name or service not known): run the same command again later"
    )


def test_waits_grow_and_the_hub_may_ask_for_more():
    errors = [http_error(503), http_error(429, **{"Retry-After": "7"}), httpx2.ReadError("x"), http_error(500)]
    waited = []

    def action():
        if errors:
            raise errors.pop(0)
        return "done"

    assert patiently(action, waited.append) == "done"
    assert waited == [1, 7, 4, 8]


def test_what_stays_wrong_is_raised_after_five_waits():
    waited, tries = [], []

    def action():
        tries.append(1)
        raise http_error(503)

    with pytest.raises(HfHubHTTPError):
        patiently(action, waited.append)
    assert waited == [1, 2, 4, 8, 16]
    assert len(tries) == 6


def test_what_is_refused_is_not_tried_again():
    tries = []

    def action():
        tries.append(1)
        raise http_error(403)

    with pytest.raises(HfHubHTTPError):
        patiently(action, lambda seconds: pytest.fail("waited"))
    assert len(tries) == 1


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (http_error(401), "the Hub does not know you, or no longer accepts your token: log in with: hf auth login"),
        (http_error(403), "you may not do this with me/data (403 Forbidden): use a token with write access to it"),
        (http_error(404), "there is no dataset me/data on the Hub, or you may not read it"),
        (http_error(412), "me/data changed on the Hub while this was uploaded"),
        (http_error(503), "the Hub does not answer as it should (503 Service Unavailable): run the same command again"),
        (httpx2.ConnectError("no route"), "the Hub does not answer as it should (no route)"),
        (ValueError("Invalid metadata in README.md"), "the Hub refuses me/data (Invalid metadata in README.md)"),
        (ValueError("token hf_abc is bad"), "the Hub refuses me/data (token hf_... is bad)"),
    ],
)
def test_one_sentence_for_each_error(error, sentence):
    with pytest.raises(HubError) as raised, explained("me/data"):
        raise error
    assert str(raised.value).startswith(sentence)
    assert "\n" not in str(raised.value)


def test_an_error_of_this_machines_files_stays_what_it_is():
    with pytest.raises(FileNotFoundError), explained("me/data"):
        open("/nowhere/at/all")  # noqa: SIM115


def test_offline_is_said(monkeypatch):
    """The tests run with HF_HUB_OFFLINE=1."""
    monkeypatch.setenv("HF_TOKEN", "hf_token")
    with pytest.raises(HubError, match="me/data is on the Hub, and HF_HUB_OFFLINE is set: unset it"):
        push_files(Target("me/data"), Version({}, re.compile(""), "message"), pause=pytest.fail)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):
        download("me/data", None, ["manifest.json"], pause=pytest.fail)
    with pytest.raises(
        HubError, match="there is no folder me/data here, and me/data is on the Hub, and HF_HUB_OFFLINE"
    ):
        load("me/data")


def test_content_is_compared_with_what_the_hub_names(tmp_path):
    # git hash-object of "hello\n", and its sha256
    git, sha256 = (
        "ce013625030ba8dba906f756967f9e9ca394464a",
        "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
    )
    file = tmp_path / "file"
    file.write_bytes(b"hello\n")
    small = RepoFile(path="x", size=6, oid=git)
    large = RepoFile(path="x", size=6, oid="0" * 40, lfs={"size": 6, "oid": sha256, "pointerSize": 127})
    for entry in (small, large):
        assert _same(b"hello\n", entry)
        assert _same(file, entry)
        assert not _same(b"hallo\n", entry)
        assert not _same(b"hello", entry)
    assert not _same(file, None)
