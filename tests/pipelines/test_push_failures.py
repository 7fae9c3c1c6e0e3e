"""A push that meets trouble: nothing is lost or half published, and one sentence says what to do."""

import random
import signal

import hub_faults as faults
import pytest
from hub_clients import TOKEN
from small_hub import State
from small_hub_answers import answer

STEPS = [
    "whoami", "create", "tree", "refs", "info", "preupload", "batch", "upload", "verify", "validate", "commit", "tag",
]  # fmt: skip
"""Requests of a push of a new version, each of which may fail."""


@pytest.fixture
def pushed(hub, clients, pushed_dataset):
    """The Hub holds the first version; gives its files."""
    assert clients.rpo_data("push", pushed_dataset.path, "me/data").status == 0
    hub.calls.clear()
    hub.headers.clear()
    return hub.state.files("me/data")


@pytest.fixture(scope="session")
def second(hub_server, hub_clients, pushed_dataset, other_dataset):
    """What the Hub holds after the second version."""
    hub_server.reset()
    hub_server.state.tokens[TOKEN] = "me"
    for dataset in (pushed_dataset, other_dataset):
        assert hub_clients.rpo_data("push", dataset.path, "me/data").status == 0
    return hub_server.state.files("me/data")


@pytest.fixture
def push(clients, other_dataset):
    """Push the second version."""
    return lambda *arguments: clients.rpo_data("push", other_dataset.path, "me/data", *arguments)


def test_the_two_versions_differ_where_they_should(pushed, second):
    changed = {path for path in pushed if pushed[path] != second[path]}
    assert changed == {"README.md", "manifest.json", "report.html", "plots/losses.svg"} | {
        f"groups/{split}-00000-of-00001.parquet" for split in ("train", "test")
    }


@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_fails_for_a_moment_is_tried_again(hub, push, pushed, second, step):
    hub.fail(step, faults.status(503))
    hub.fail(step, faults.cut)
    hub.fail(step, faults.status(429, **{"Retry-After": "1"}))
    done = push("--tag", "v2")
    assert done.status == 0, done.stderr
    assert hub.state.files("me/data", "v2") == hub.state.files("me/data") == second
    assert hub.count(step) >= 4
    if step in ("create", "commit"):
        assert "waiting   1 s: the Hub does not answer as it should" in done.stdout


@pytest.mark.parametrize("step", ["create", "upload", "validate", "commit"])
def test_a_step_that_keeps_failing_leaves_the_old_version(hub, push, pushed, second, step):
    hub.fail(step, faults.status(500, "database is down"), times=100)
    done = push()
    assert done.status == 1
    assert "the Hub does not answer as it should" in done.stderr
    assert "run the same command again later; me/data holds its old version or the new one, as a whole" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert hub.state.files("me/data") == pushed
    sent = hub.count("upload")
    hub.reset_faults()
    assert push().status == 0
    assert hub.state.files("me/data") == second
    if step in ("validate", "commit"):
        assert hub.count("upload") == sent == 3  # what was uploaded is not sent again


def test_a_page_of_a_proxy_is_no_answer(hub, push, pushed, second):
    for step in ("validate", "commit", "info"):
        hub.fail(step, faults.page(502))
    assert push().status == 0
    assert hub.state.files("me/data") == second


@pytest.mark.parametrize("when", ["start", "after"])
def test_a_cut_connection_while_uploading(hub, push, pushed, second, when):
    hub.fail("upload", faults.cut_in_body if when == "start" else faults.cut, when=when)
    done = push()
    assert done.status == 0, done.stderr
    assert hub.state.files("me/data") == second


@pytest.mark.parametrize("arguments", [[], ["--branch", "dev"], ["--create-pr"]])
def test_a_commit_whose_answer_is_lost_is_not_made_twice(hub, push, pushed, second, arguments):
    hub.fail("commit", faults.cut, when="after")
    done = push(*arguments)
    assert done.status == 0, done.stderr
    assert hub.count("commit") == 1
    repository = hub.state.repositories["me/data"]
    assert len(repository.commits) == 3  # the empty one, the first version, this one
    revision = {"--branch": "dev", "--create-pr": "refs/pr/1"}.get(arguments[0]) if arguments else "main"
    assert hub.state.files("me/data", revision) == second
    assert "6 files changed" in done.stdout or "opened" in done.stdout


def test_a_commit_of_somebody_else_is_not_overwritten(hub, push, pushed):
    hub.fail("validate", faults.another_commit("README.md", b"a better page"))
    done = push()
    assert done.status == 1
    assert "me/data changed on the Hub while this was uploaded: look at what came in, then push again" in done.stderr
    assert hub.state.files("me/data") == pushed | {"README.md": b"a better page"}


def test_a_commit_between_two_tries_is_not_overwritten(hub, push, pushed):
    hub.fail("commit", faults.another_commit("LICENSE", b"mine", then=answer({}, 503)))
    done = push()
    assert done.status == 1
    assert "me/data changed on the Hub while this was uploaded" in done.stderr
    assert hub.state.files("me/data") == pushed | {"LICENSE": b"mine"}


def test_a_conflict_that_the_hub_reports(hub, push, pushed):
    hub.fail("commit", faults.status(412, "A commit has happened since. Please refresh and try again."))
    done = push()
    assert done.status == 1
    assert "me/data changed on the Hub while this was uploaded" in done.stderr
    assert hub.state.files("me/data") == pushed


def test_a_token_that_expires_in_the_middle(hub, push, pushed, second):
    hub.fail("upload", faults.expired, when="after")
    done = push()
    assert done.status == 1
    assert "log in with: hf auth login, then run this again" in done.stderr
    assert hub.state.files("me/data") == pushed
    hub.state.tokens[TOKEN] = "me"
    assert push().status == 0
    assert hub.state.files("me/data") == second


def test_no_token_and_a_token_without_rights(hub, clients, other_dataset):
    done = clients.rpo_data("push", other_dataset.path, "me/data", HF_TOKEN="", HF_TOKEN_PATH="/nowhere")
    assert (done.status, hub.count("create")) == (1, 0)
    assert "log in with: hf auth login" in done.stderr
    done = clients.rpo_data("push", other_dataset.path, "you/data")
    assert done.status == 1
    assert "you may not do this with you/data (403 You don't have the rights" in done.stderr


def test_somebody_elses_dataset_takes_pull_requests_only(hub, clients, push, pushed, other_dataset, second):
    hub.state.repositories["you/data"] = hub.state.repositories["me/data"]
    done = clients.rpo_data("push", other_dataset.path, "you/data")
    assert done.status == 1
    assert "you may not do this with you/data (403 You need write access to this repository)" in done.stderr
    assert hub.state.files("you/data") == pushed
    done = clients.rpo_data("push", other_dataset.path, "you/data", "--create-pr")
    assert done.status == 0, done.stderr
    assert hub.state.files("you/data") == pushed
    proposed = hub.state.files("you/data", "refs/pr/1")
    assert {path for path in second if proposed[path] != second[path]} == {"README.md"}  # which holds the name


def test_a_token_that_the_hub_repeats_is_not_shown(hub, push, pushed):
    hub.fail("commit", faults.status(403, f"token {TOKEN} may not write"))
    done = push()
    assert "token hf_... may not write" in done.stderr
    assert TOKEN not in done.stdout + done.stderr


def test_a_card_that_the_hub_refuses(hub, push, pushed):
    done = push("--license", "no-such-licence")
    assert done.status == 1
    assert '"license" must be one of' in done.stderr
    assert hub.count("upload", "commit") == 0 or hub.state.files("me/data") == pushed


def test_bytes_that_the_hub_stores_wrongly_are_noticed(hub, push, pushed):
    hub.fail("commit", faults.other_bytes("manifest.json"), when="after")
    done = push("--tag", "v2")
    assert done.status == 1
    assert "me/data does not hold manifest.json as it was sent: push again" in done.stderr
    assert "refs/tags/v2" not in hub.state.repositories["me/data"].refs


def test_files_that_the_repository_ignores_are_noticed(hub, push, pushed):
    hub.ignored.add("report.html")
    done = push()
    assert done.status == 1
    assert "me/data does not hold report.html as it was sent" in done.stderr


def test_a_check_that_cannot_be_made_after_the_commit(hub, push, pushed, second):
    hub.fail("tree", faults.status(500), skip=2, times=100)
    done = push("--tag", "v2")
    assert done.status == 1
    assert "me/data holds its old version or the new one, as a whole" in done.stderr
    assert hub.state.files("me/data") == second
    assert "refs/tags/v2" not in hub.state.repositories["me/data"].refs
    hub.reset_faults()
    assert push("--tag", "v2").status == 0
    assert hub.state.files("me/data", "v2") == second
    assert hub.count("commit") == 1


def test_slow_connections_are_waited_for(hub, push, pushed, second):
    hub.fail(None, faults.slow, when="start", times=100)
    assert push().status == 0
    assert hub.state.files("me/data") == second


@pytest.mark.parametrize("step", ["upload", "commit"])
def test_ctrl_c_says_what_is_kept(hub, clients, push, pushed, second, step):
    killer = faults.Killer(signal.SIGINT)
    clients.started = killer.started
    hub.fail(step, killer.kill)
    done = push()
    assert done.status == 130
    assert done.stderr == (
        "stopped; me/data holds the old version or the new one, as a whole; what was uploaded is not sent again\n"
    )
    assert hub.state.files("me/data") == pushed
    assert not list(clients.folder.glob("rpo-data-push-*"))
    clients.started = lambda pid: None
    assert push().status == 0
    assert hub.state.files("me/data") == second


def points(requests: list[str], seed: int) -> list[tuple[int, str]]:
    """Eighteen random moments of a push and the two around its commit: number of the request, and when in it."""
    draw = random.Random(seed)
    commit = requests.index("commit")
    drawn = [(draw.randrange(len(requests)), draw.choice(["start", "before", "after"])) for _ in range(18)]
    return [*drawn, (commit, "before"), (commit, "after")]


@pytest.mark.slow
def test_a_push_that_is_killed_leaves_the_old_or_the_new_version(hub, clients, push, pushed, second):
    first = hub.state.copy()
    assert push("--tag", "v2").status == 0
    requests = [kind for kind, _ in hub.calls]
    outcomes = []
    for number, when in points(requests, seed=0):
        hub.restore(first.copy())
        killer = faults.Killer()
        clients.started = killer.started
        hub.fail(None, killer.kill, skip=number, when=when)
        assert push("--tag", "v2").status == -9
        files = hub.state.files("me/data")
        assert files in (pushed, second), (number, when)
        outcomes.append(files == second)
        clients.started = lambda pid: None
        assert push("--tag", "v2").status == 0, (number, when)
        assert hub.state.files("me/data", "v2") == hub.state.files("me/data") == second
    assert len(outcomes) == 20
    assert {True, False} == set(outcomes)
    assert outcomes[-2:] == [False, True]


@pytest.mark.slow
def test_a_first_push_that_is_killed_leaves_an_empty_repository_or_the_whole(hub, clients, push, second):
    for number, when in [(3, "after"), (12, "before"), (20, "start")]:
        hub.restore(State())
        hub.state.tokens[TOKEN] = "me"
        killer = faults.Killer()
        clients.started = killer.started
        hub.fail(None, killer.kill, skip=number, when=when)
        assert push().status == -9
        assert hub.state.repositories["me/data"].tree().keys() == {".gitattributes"}
        clients.started = lambda pid: None
        assert push().status == 0
        assert hub.state.files("me/data") == second
