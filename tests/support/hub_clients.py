"""Real clients of the small Hub, in processes of their own."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

DRIVER = Path(__file__).with_name("hub_driver.py")
TOKEN = "hf_aSecretThatNobodyMaySee"
_AS_RPO_DATA_SETS_THEM = {
    "HF_HUB_VERBOSITY": "error",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
}  # before the first import, which the driver has behind it
_NOT_THEIRS = ("HF_", "HUGGING", "TRANSFORMERS_", "XDG_")


@dataclass
class Done:
    """How a client ended; `status` is minus the signal where one ended it."""

    status: int
    stdout: str
    stderr: str


class Clients:
    """Runs `rpo-data` and Python code against a Hub. Use as a context manager.

    Args:
        endpoint: address of the Hub.
        folder: home, caches and working folder of the clients.
    """

    def __init__(self, endpoint: str, folder: Path) -> None:
        self.folder = folder
        self.endpoint = endpoint
        self.started: Callable[[int], None] = lambda pid: None

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_THEIRS)}
        own = {"HF_ENDPOINT": self.endpoint, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        own |= {"HF_TOKEN": TOKEN, "HF_HOME": str(self.folder / "hf"), "XDG_CACHE_HOME": str(self.folder / "cache")}
        return kept | own | {"HOME": str(self.folder), "TMPDIR": str(self.folder), "OMP_NUM_THREADS": "1"}

    def __enter__(self) -> "Clients":
        self._driver = subprocess.Popen(
            [sys.executable, str(DRIVER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self.environment() | _AS_RPO_DATA_SETS_THEM,
            cwd=self.folder,
        )
        assert self._driver.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *error: object) -> None:
        self._driver.stdin.close()
        self._driver.wait(timeout=20)
        self._driver.stdout.close()

    def rpo_data(self, *arguments: object, **environment: str) -> Done:
        """`rpo-data ARGUMENTS`."""
        return self._run({"arguments": [str(argument) for argument in arguments]}, environment)

    def python(self, code: str, **environment: str) -> Done:
        """`python -c CODE`, which must end well."""
        done = self._run({"code": code}, environment)
        assert done.status == 0, done.stderr
        return done

    def _run(self, command: dict, environment: dict[str, str]) -> Done:
        outputs = {name: str(self.folder / f"{name}.txt") for name in ("stdout", "stderr")}
        command |= outputs | {"folder": str(self.folder), "environment": environment}
        self._driver.stdin.write(json.dumps(command) + "\n")
        self._driver.stdin.flush()
        with contextlib.suppress(ProcessLookupError):
            self.started(int(self._driver.stdout.readline()))
        status = os.waitstatus_to_exitcode(int(self._driver.stdout.readline()))
        return Done(status, *(Path(path).read_text(encoding="utf-8") for path in outputs.values()))
