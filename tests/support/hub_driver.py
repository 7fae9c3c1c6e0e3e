"""Runs clients of the small Hub: one process that has imported what they need, and forks for each command.

It stands in for `python -c CODE` and `rpo-data ARGUMENTS` in a fresh process: the environment is set before any import.
"""

import json
import os
import sys
import time
import traceback


def main() -> None:
    slept = time.sleep
    time.sleep = lambda seconds: slept(min(seconds, 0.01))  # the clients wait seconds between two tries
    import datasets  # noqa: F401
    import huggingface_hub  # noqa: F401

    import rpo_data.pipelines.cli
    import rpo_data.pipelines.push  # noqa: F401

    print("ready", flush=True)  # noqa: T201
    for line in sys.stdin:
        command = json.loads(line)
        child = os.fork()
        if child == 0:
            run(command)
        print(child, flush=True)  # noqa: T201
        _, status = os.waitpid(child, 0)
        print(status, flush=True)  # noqa: T201


def run(command: dict) -> None:
    """In the child: one command, its output in files; never returns."""
    status = 70
    try:
        for name, descriptor in (("stdout", 1), ("stderr", 2)):
            os.dup2(os.open(command[name], os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), descriptor)
        os.chdir(command["folder"])
        os.environ.update(command["environment"])
        try:
            if "code" in command:
                exec(command["code"], {"__name__": "__main__"})
            else:
                from rpo_data.pipelines.cli import main as rpo_data

                sys.argv = ["rpo-data", *command["arguments"]]
                rpo_data()
            status = 0
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else int(error.code is not None)
        except BaseException:
            traceback.print_exc()
            status = 1
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


if __name__ == "__main__":
    main()
