"""What the small Hub answers to each request of the real clients; requests are named as in `ROUTES`."""

import base64
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml
from small_hub import File, Refused, Repository, small_file

if TYPE_CHECKING:
    from small_hub_server import SmallHub

NAME = r"(?P<name>[\w.-]+/[\w.-]+)"
ROUTES = {
    "whoami": ("GET", r"/api/whoami-v2"),
    "validate": ("POST", r"/api/validate-yaml"),
    "create": ("POST", r"/api/repos/create"),
    "info": ("GET", rf"/api/datasets/{NAME}(/revision/(?P<revision>[^/]+))?"),
    "refs": ("GET", rf"/api/datasets/{NAME}/refs"),
    "tree": ("GET", rf"/api/datasets/{NAME}/tree/(?P<revision>[^/]+)(/(?P<path>.+))?"),
    "preupload": ("POST", rf"/api/datasets/{NAME}/preupload/(?P<revision>[^/]+)"),
    "batch": ("POST", rf"/datasets/{NAME}\.git/info/lfs/objects/batch"),
    "upload": ("PUT", r"/storage/(?P<oid>[0-9a-f]{64})(/(?P<part>\d+))?"),
    "complete": ("POST", r"/storage/(?P<oid>[0-9a-f]{64})"),
    "verify": ("POST", rf"/datasets/{NAME}\.git/info/lfs/objects/verify"),
    "commit": ("POST", rf"/api/datasets/{NAME}/commit/(?P<revision>[^/]+)"),
    "branch": ("POST", rf"/api/datasets/{NAME}/branch/(?P<branch>[^/]+)"),
    "tag": ("POST", rf"/api/datasets/{NAME}/tag/(?P<revision>[^/]+)"),
    "discussions": ("GET", rf"/api/datasets/{NAME}/discussions"),
    "head": ("HEAD", rf"/datasets/{NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)"),
    "resolve": ("GET", rf"/datasets/{NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)"),
    "download": ("GET", r"/storage/(?P<oid>[0-9a-f]{64})"),
}
READS = {"whoami", "info", "refs", "tree", "discussions", "head", "resolve", "download", "validate"}
AT_STORAGE = {"upload", "complete", "download"}
"""Answered by a server of its own, another host to the clients; it trusts the address, as S3 does, and may see no token."""


@dataclass
class Call:
    """One request."""

    kind: str
    parts: dict[str, str | None]
    query: dict[str, str]
    body: bytes
    user: str | None
    headers: dict[str, str]  # names in lower case

    @property
    def json(self) -> dict:
        return json.loads(self.body)


@dataclass
class Answer:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] | None = None


def answer(content: object, status: int = 200, **headers: str) -> Answer:
    return Answer(status, json.dumps(content).encode(), {"Content-Type": "application/json", **headers})


def _whoami(hub: "SmallHub", call: Call) -> Answer:
    token = {"displayName": "test", "role": "write"}
    return answer({"type": "user", "name": call.user, "orgs": [], "auth": {"accessToken": token}})


def _validate(hub: "SmallHub", call: Call) -> Answer:
    head = re.match(r"---\n(.*?)\n---\n", call.json["content"], re.DOTALL)
    try:
        known = yaml.safe_load(head[1]) if head else {}
    except yaml.YAMLError:
        known = None
    if not isinstance(known, dict) or not isinstance(known.get("license", ""), str | list):
        return answer({"errors": [{"message": "the metadata is not valid"}], "warnings": []}, 400)
    if "no-such-licence" in known.get("license", ""):
        return answer({"errors": [{"message": '"license" must be one of [mit, ...]'}], "warnings": []}, 400)
    return answer({"errors": [], "warnings": []})


def _create(hub: "SmallHub", call: Call) -> Answer:
    given = call.json
    assert given["type"] == "dataset", given
    owner = given.get("organization") or call.user
    if owner != call.user:
        raise Refused(403, "", f'You don\'t have the rights to create a dataset under the namespace "{owner}"')
    name = f"{owner}/{given['name']}"
    where = {"url": f"{hub.endpoint}/datasets/{name}", "name": name, "id": name}
    if name in hub.state.repositories:
        return answer(where | {"error": "You already created this dataset repo"}, 409)
    hub.state.repositories[name] = Repository(private=given.get("visibility") == "private")
    return answer(where)


def _info(hub: "SmallHub", call: Call) -> Answer:
    name, revision = call.parts["name"], call.parts["revision"] or "main"
    repository = hub.state.repository(name, call.user)
    sha = repository.resolve(revision)
    return answer(
        {
            "_id": name,
            "id": name,
            "sha": sha,
            "private": repository.private,
            "gated": False,
            "disabled": False,
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "author": name.split("/")[0],
            "lastModified": "2026-01-01T00:00:00.000Z",
            "createdAt": "2026-01-01T00:00:00.000Z",
            "siblings": [{"rfilename": path} for path in sorted(repository.commits[sha])],
        }
    )


def _refs(hub: "SmallHub", call: Call) -> Answer:
    listed: dict[str, list] = {"branches": [], "converts": [], "tags": [], "pullRequests": []}
    where = {"refs/heads/": "branches", "refs/tags/": "tags", "refs/pr/": "pullRequests"}
    for ref, sha in hub.state.repository(call.parts["name"], call.user).refs.items():
        prefix = next(prefix for prefix in where if ref.startswith(prefix))
        listed[where[prefix]].append({"name": ref.removeprefix(prefix), "ref": ref, "targetCommit": sha})
    return answer(listed)


def _tree(hub: "SmallHub", call: Call) -> Answer:
    tree = hub.state.repository(call.parts["name"], call.user).tree(call.parts["revision"])
    folder = f"{call.parts['path']}/" if call.parts["path"] else ""
    below = {path: file for path, file in sorted(tree.items()) if path.startswith(folder)}
    if folder and not below:
        raise Refused(404, "EntryNotFound", f"{call.parts['path']} does not exist")
    return answer(_listed(below, folder, deep=call.query.get("recursive") == "true"))


def _listed(tree: dict[str, File], folder: str, *, deep: bool) -> list[dict]:
    entries: dict[str, dict] = {}
    for path, file in tree.items():
        steps = path.removeprefix(folder).split("/")
        for depth in range(1, len(steps) if deep else min(len(steps), 2)):
            name = folder + "/".join(steps[:depth])
            entries[name] = {
                "type": "directory",
                "path": name,
                "size": 0,
                "oid": hashlib.sha1(name.encode()).hexdigest(),
            }
        if deep or len(steps) == 1:
            entries[path] = file.entry(path)
    return list(entries.values())


def _preupload(hub: "SmallHub", call: Call) -> Answer:
    tree = hub.state.repository(call.parts["name"], call.user).tree(call.parts["revision"])
    files = []
    for file in call.json["files"]:
        path, size = file["path"], file["size"]
        base64.b64decode(file["sample"], validate=True)
        large = size > hub.small or path.endswith(".parquet")
        known = {"oid": (tree[path].sha256 if large else tree[path].oid)} if path in tree else {}
        files.append(
            {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": path in hub.ignored} | known
        )
    return answer({"files": files})


def _batch(hub: "SmallHub", call: Call) -> Answer:
    hub.state.repository(call.parts["name"], call.user)
    given = call.json
    assert given["operation"] == "upload", given
    objects = []
    for wanted in given["objects"]:
        oid, size = wanted["oid"], wanted["size"]
        entry: dict = {"oid": oid, "size": size}
        if oid not in hub.state.storage:
            header = {}
            if hub.part and size > hub.part:
                header = {"chunk_size": str(hub.part)}
                for number in range(-(-size // hub.part)):
                    header[f"{number + 1:05}"] = f"{hub.storage}/storage/{oid}/{number + 1}"
            verify = {"href": f"{hub.endpoint}/datasets/{call.parts['name']}.git/info/lfs/objects/verify"}
            upload = {"href": f"{hub.storage}/storage/{oid}", "header": header}
            entry["actions"] = {"upload": upload, "verify": verify}
        objects.append(entry)
    return answer({"transfer": "multipart" if hub.part else "basic", "objects": objects})


def _upload(hub: "SmallHub", call: Call) -> Answer:
    oid, part = call.parts["oid"], call.parts["part"]
    if part:
        hub.state.parts.setdefault(oid, {})[int(part)] = call.body
    else:
        _store(hub, oid, call.body)
    return Answer(200, b"", {"ETag": f'"{hashlib.md5(call.body).hexdigest()}"'})


def _complete(hub: "SmallHub", call: Call) -> Answer:
    parts = hub.state.parts.pop(call.parts["oid"])
    assert [part["partNumber"] for part in call.json["parts"]] == sorted(parts)
    _store(hub, call.parts["oid"], b"".join(parts[number] for number in sorted(parts)))
    return answer({})


def _store(hub: "SmallHub", oid: str, content: bytes) -> None:
    if hashlib.sha256(content).hexdigest() != oid:
        raise Refused(400, "", "the content does not have the announced sha256")
    hub.state.storage[oid] = content


def _verify(hub: "SmallHub", call: Call) -> Answer:
    given = call.json
    if len(hub.state.storage.get(given["oid"], b"")) != given["size"]:
        raise Refused(404, "", "the object was not uploaded")
    return answer({})


def _commit(hub: "SmallHub", call: Call) -> Answer:
    repository = hub.state.repository(call.parts["name"], call.user)
    if call.user != call.parts["name"].partition("/")[0] and not call.query.get("create_pr"):
        raise Refused(403, "", "You need write access to this repository")
    lines = [json.loads(line) for line in call.body.splitlines()]
    header = next(line["value"] for line in lines if line["key"] == "header")
    ref = f"refs/heads/{call.parts['revision']}"
    if ref not in repository.refs:
        raise Refused(404, "RevisionNotFound", f"Invalid rev id: {call.parts['revision']}")
    parent = repository.refs[ref]
    if header.get("parentCommit") not in (None, parent):
        raise Refused(412, "", "A commit has happened since. Please refresh and try again.")
    tree = dict(repository.commits[parent])
    for line in lines:
        if line["key"] != "header":
            _change(hub, tree, line["key"], line["value"])
    more = {}
    if call.query.get("create_pr"):
        repository.pulls.append(header["summary"])
        ref = f"refs/pr/{len(repository.pulls)}"
        more = {"pullRequestUrl": f"{hub.endpoint}/datasets/{call.parts['name']}/discussions/{len(repository.pulls)}"}
    sha = repository.add(ref, parent, tree, header["summary"])
    where = f"{hub.endpoint}/datasets/{call.parts['name']}/commit/{sha}"
    return answer({"success": True, "commitOid": sha, "commitUrl": where} | more)


def _change(hub: "SmallHub", tree: dict[str, File], kind: str, value: dict) -> None:
    path = value["path"]
    if kind == "file":
        tree[path] = small_file(base64.b64decode(value["content"], validate=True))
    elif kind == "lfsFile":
        if value["oid"] not in hub.state.storage:
            raise Refused(400, "", f"{path} was never uploaded")
        tree[path] = File(len(hub.state.storage[value["oid"]]), value["oid"], None)
    elif kind == "deletedFile":
        if path not in tree:
            raise Refused(404, "EntryNotFound", "A file with this name doesn't exist")
        del tree[path]
    else:
        raise Refused(400, "", f"the small Hub does not know '{kind}'")


def _branch(hub: "SmallHub", call: Call) -> Answer:
    repository = hub.state.repository(call.parts["name"], call.user)
    ref = f"refs/heads/{call.parts['branch']}"
    if ref in repository.refs:
        raise Refused(409, "", "Reference already exists")
    repository.refs[ref] = repository.resolve(call.json.get("startingPoint") or "main")
    return answer({})


def _tag(hub: "SmallHub", call: Call) -> Answer:
    repository = hub.state.repository(call.parts["name"], call.user)
    ref = f"refs/tags/{call.json['tag']}"
    if ref in repository.refs:
        raise Refused(409, "", "Tag reference exists already")
    repository.refs[ref] = repository.resolve(call.parts["revision"])
    return answer({})


def _discussions(hub: "SmallHub", call: Call) -> Answer:
    name = call.parts["name"]
    listed = [
        {"num": number, "title": title, "author": {"name": call.user}, "createdAt": "2026-01-01T00:00:00.000Z"}
        | {"status": "open", "isPullRequest": True, "repo": {"name": name, "type": "dataset"}}
        for number, title in enumerate(hub.state.repository(name, call.user).pulls, 1)
    ]
    return answer({"discussions": listed, "count": len(listed), "start": 0})


def _resolve(hub: "SmallHub", call: Call) -> Answer:
    repository = hub.state.repository(call.parts["name"], call.user)
    sha = repository.resolve(call.parts["revision"])
    file = repository.commits[sha].get(call.parts["path"])
    if file is None:
        raise Refused(404, "EntryNotFound", "Entry not found")
    headers = {"X-Repo-Commit": sha}
    if file.content is not None:
        headers |= {"ETag": f'"{file.oid}"', "Content-Length": str(file.size)}
        return Answer(200, file.content, headers)
    headers |= {"X-Linked-ETag": f'"{file.sha256}"', "X-Linked-Size": str(file.size)}
    return Answer(302, b"", headers | {"Location": f"{hub.storage}/storage/{file.sha256}", "ETag": f'"{file.oid}"'})


def _download(hub: "SmallHub", call: Call) -> Answer:
    content = hub.state.storage[call.parts["oid"]]
    headers = {"ETag": f'"{call.parts["oid"]}"', "Accept-Ranges": "bytes"}
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", call.headers.get("range", ""))
    if not asked:
        return Answer(200, content, headers)
    start, stop = int(asked[1]), min(int(asked[2] or len(content) - 1), len(content) - 1)
    headers["Content-Range"] = f"bytes {start}-{stop}/{len(content)}"
    return Answer(206, content[start : stop + 1], headers)


ANSWERS: dict[str, Callable[["SmallHub", Call], Answer]] = {
    "whoami": _whoami, "validate": _validate, "create": _create, "info": _info, "refs": _refs, "tree": _tree,
    "preupload": _preupload, "batch": _batch, "upload": _upload, "complete": _complete,
    "verify": _verify, "commit": _commit, "branch": _branch, "tag": _tag, "discussions": _discussions,
    "head": _resolve, "resolve": _resolve, "download": _download,
}  # fmt: skip
