"""`explore`: the interactive map of a dataset's prompts, by embedding-atlas, from a view that is kept in the cache."""

import os
import socket
import subprocess
import sys
import tempfile
import time
import webbrowser
from importlib.util import find_spec
from pathlib import Path
from typing import IO

import pyarrow.parquet as pq

from rpo_data.dataset import ContrastDataset
from rpo_data.errors import MissingExtra, RpoDataError
from rpo_data.page.view import explore_view
from rpo_data.pipelines.checking import Say
from rpo_data.pipelines.store import stored_stage

_STARTING = 120  # seconds that the server may take: it imports much


def write_view(data: ContrastDataset, cache: Path) -> Path:
    """Folder of the cache that holds `prompts.parquet` and `labels.parquet` (`explore_view`); made where it is not there yet.

    Raises:
        DatasetError: the dataset holds no vectors.
    """

    def make(folder: Path) -> None:
        prompts, labels = explore_view(data)
        pq.write_table(prompts, folder / "prompts.parquet", compression="zstd")
        pq.write_table(labels, folder / "labels.parquet")

    return stored_stage(cache, "explore", {"tables": data.manifest.tables}, make)


def explore(
    data: ContrastDataset, cache: Path, *, port: int = 5055, browse: bool = True, say: Say = lambda line: None
) -> None:
    """Serve the map on this machine alone, until it is stopped.

    Args:
        data: the dataset.
        cache: where the view is kept.
        port: of the server.
        browse: whether to open a browser.
        say: called with the address.

    Raises:
        MissingExtra: embedding-atlas is not installed.
        RpoDataError: the port is taken, or the server does not start.
    """
    if find_spec("embedding_atlas") is None:
        raise MissingExtra("explore needs embedding-atlas: pip install 'rpo-data[explore]'")
    if _answers(port):
        raise RpoDataError(f"port {port} is taken: choose another with --port")
    view = write_view(data, cache)
    command = [sys.executable, "-m", "embedding_atlas.cli", str(view / "prompts.parquet")]
    for option, column in {"text": "prompt", "x": "x", "y": "y", "neighbors": "neighbors"}.items():
        command += [f"--{option}", column]
    command += ["--labels", str(view / "labels.parquet"), "--host", "127.0.0.1", "--port", str(port), "--no-auto-port"]
    with tempfile.TemporaryFile() as errors:
        server = subprocess.Popen(
            command, env=os.environ | {"HF_HUB_OFFLINE": "1"}, stdout=subprocess.DEVNULL, stderr=errors
        )
        try:
            _wait(server, port, errors)
            address = f"http://127.0.0.1:{port}"
            say(f"the map is at {address}; Ctrl-C stops it")
            if browse:
                webbrowser.open(address)
            while (
                server.poll() is None
            ):  # waiting without an end would not be broken by Ctrl-C: polars has its own handler
                time.sleep(0.2)
        finally:
            _stop(server)


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(timeout=3)
    except subprocess.TimeoutExpired:  # it waits for the browser to hang up
        server.kill()
        server.wait()


def _wait(server: subprocess.Popen[bytes], port: int, errors: IO[bytes]) -> None:
    """Wait until the server answers.

    Raises:
        RpoDataError: it ended, or took too long.
    """
    end = time.monotonic() + _STARTING
    while not _answers(port):
        if server.poll() is not None:
            errors.seek(0)
            told = errors.read().decode(errors="replace").strip().splitlines() or ["it said nothing"]
            raise RpoDataError(f"embedding-atlas did not start ({told[-1]}): install it again, or try its own command")
        if time.monotonic() > end:
            raise RpoDataError(f"embedding-atlas did not answer on port {port} in {_STARTING} seconds: try again")
        time.sleep(0.1)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
