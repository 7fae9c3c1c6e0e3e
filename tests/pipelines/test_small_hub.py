"""The small Hub itself: it refuses what the real one refuses, and what it does not know."""

import hashlib
import json
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

import pytest
from hub_clients import TOKEN
from small_hub_answers import ANSWERS, ROUTES
from small_hub_server import SmallHub


@pytest.fixture(scope="module")
def server():
    with SmallHub() as server:
        yield server


@pytest.fixture
def own_hub(server):
    server.reset()
    server.state.tokens[TOKEN] = "me"
    return server


def ask(hub, method, path, content=None, *, token=TOKEN, storage=False, **headers):
    """Status and JSON of a request."""
    connection = HTTPConnection(urlsplit(hub.storage if storage else hub.endpoint).netloc, timeout=10)
    body = content if isinstance(content, bytes | None) else json.dumps(content).encode()
    headers |= {"Authorization": f"Bearer {token}"} if token else {}
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, json.loads(text) if text.startswith(b"{") else text


def commit(hub, *lines, parent=None, query=""):
    header = {"key": "header", "value": {"summary": "title"} | ({"parentCommit": parent} if parent else {})}
    body = b"\n".join(json.dumps(line).encode() for line in (header, *lines))
    return ask(hub, "POST", f"/api/datasets/me/data/commit/main{query}", body)


@pytest.fixture
def repository(own_hub):
    assert ask(own_hub, "POST", "/api/repos/create", {"type": "dataset", "name": "data"})[0] == 200
    return own_hub.state.repositories["me/data"]


def test_each_route_has_its_answer():
    assert ROUTES.keys() == ANSWERS.keys()


@pytest.mark.parametrize(
    ("method", "path", "storage"),
    [
        ("GET", "/api/models/me/data", False),
        ("POST", "/api/datasets/me/data/super-squash/main", False),
        ("DELETE", "/api/repos/delete", False),
        ("GET", f"/storage/{'0' * 64}", False),
        ("GET", "/api/whoami-v2", True),
    ],
)
def test_an_unknown_request_is_an_error_and_noted(own_hub, method, path, storage):
    status, _ = ask(own_hub, method, path, storage=storage)
    assert status == 501
    assert own_hub.unknown == [f"{method} {path}"]


def test_a_token_that_is_sent_to_the_storage_is_noted(own_hub):
    with pytest.raises(HTTPException):
        ask(own_hub, "GET", f"/storage/{'0' * 64}", storage=True)
    assert "a token was sent to the storage" in own_hub.unknown[0]


def test_a_commit_names_its_parent_and_is_whole_or_nothing(own_hub, repository):
    head = repository.resolve("main")
    file = {"key": "file", "value": {"path": "a", "content": "aGVsbG8K", "encoding": "base64"}}
    missing = {"key": "lfsFile", "value": {"path": "b", "algo": "sha256", "oid": "1" * 64, "size": 1}}
    assert commit(own_hub, file, missing, parent=head)[0] == 400
    assert repository.tree().keys() == {".gitattributes"}
    assert commit(own_hub, file, parent=head)[0] == 200
    assert own_hub.state.files("me/data")["a"] == b"hello\n"
    assert repository.tree()["a"].oid == "ce013625030ba8dba906f756967f9e9ca394464a"  # git hash-object
    assert commit(own_hub, {"key": "deletedFile", "value": {"path": "a"}}, parent=head)[0] == 412
    assert commit(own_hub, {"key": "deletedFile", "value": {"path": "x"}})[0] == 404
    assert commit(own_hub, {"key": "deletedFile", "value": {"path": "a"}}, query="?create_pr=1")[0] == 200
    assert "a" in repository.tree()
    assert "a" not in repository.tree("refs/pr/1")


def test_the_storage_takes_what_has_the_announced_hash(own_hub):
    oid = hashlib.sha256(b"content").hexdigest()
    assert ask(own_hub, "PUT", f"/storage/{oid}", b"contenu", token=None, storage=True)[0] == 400
    assert own_hub.state.storage == {}
    assert ask(own_hub, "PUT", f"/storage/{oid}", b"content", token=None, storage=True)[0] == 200
    assert ask(own_hub, "GET", f"/storage/{oid}", token=None, storage=True)[1] == b"content"
    asked = ask(own_hub, "GET", f"/storage/{oid}", token=None, storage=True, Range="bytes=2-4")
    assert asked == (206, b"nte")


def test_who_may_read_and_write(own_hub, repository):
    assert ask(own_hub, "GET", "/api/datasets/me/data", token=None)[0] == 200
    repository.private = True
    assert ask(own_hub, "GET", "/api/datasets/me/data", token=None)[0] == 401
    assert ask(own_hub, "GET", "/api/datasets/me/data", token="hf_other")[0] == 401
    assert ask(own_hub, "GET", "/api/datasets/me/nothing")[0] == 404
    assert ask(own_hub, "POST", "/api/repos/create", {"type": "dataset", "name": "x"}, token=None)[0] == 401
    assert ask(own_hub, "POST", "/api/repos/create", {"type": "dataset", "name": "x", "organization": "you"})[0] == 403
