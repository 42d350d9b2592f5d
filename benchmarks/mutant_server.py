"""A process that has imported what the code uses of other people's, and forks for every run of tests.

Importing torch, transformers and trl takes longer than most tests. None of our own modules is imported before the fork,
so that every run reads them as they stand in the copy at that time.
"""

from __future__ import annotations

import ast
import importlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

TOOLS = Path(__file__).resolve().parent
CONFTEST = Path("tests/conftest.py")
NO_ANSWER = 70
"""Exit code of a run in which pytest could not be asked; none of pytest's own."""


class TestServer:
    """The end of this process: runs pytest in ``folder``, on the code there.

    Args:
        folder: a copy of the tree.
        packages: folders of it whose imports from elsewhere are made in advance.
    """

    __test__ = False

    def __init__(self, folder: Path, packages: Sequence[str]) -> None:
        command = [sys.executable, "-m", "mutant_server", *packages]
        with open(folder.with_name(f"{folder.name}.server.log"), "wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment(folder),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                bufsize=0,  # what is not asked for is not read
                start_new_session=True,
            )
        self.is_ready = False
        self.running: int | None = None

    def wait_until_ready(self) -> None:
        """Until the imports are made."""
        self.is_ready = self.is_ready or self._line() == "ready"

    def pytest(
        self, arguments: Sequence[str], *, variables: dict[str, str], limit_s: float | None, output: Path
    ) -> int | None:
        """Run pytest, once the server is ready.

        Args:
            arguments: of its command line.
            variables: of the environment, on top of this process's.
            limit_s: after which it is killed with all that it has started.
            output: the file that takes what it prints.

        Returns:
            Its exit code, negative for a signal, or ``None`` where it was killed at the limit.
        """
        request = {"arguments": list(arguments), "variables": variables, "output": str(output)}
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.running = int(self._line())
        try:
            in_time = bool(select.select([self.process.stdout], [], [], limit_s)[0])
            self._kill_tests()
            code = int(self._line())
        finally:
            self.running = None
        return code if in_time else None

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode().strip()
        if not line:
            raise RuntimeError("the process that runs the tests has ended; .mutants/copies/*.server.log says why")
        return line

    def _kill_tests(self) -> None:
        """Kill the tests that run, if any do, and all that they have started."""
        if self.running is not None:
            with suppress(ProcessLookupError, PermissionError):  # where there is none left
                os.killpg(self.running, signal.SIGKILL)

    def end(self) -> None:
        """Kill the tests that run, and the server."""
        self._kill_tests()
        self.process.kill()
        self.process.wait()


def environment(folder: Path) -> dict[str, str]:
    """The variables with which Python finds the code of a copy, and the tools."""
    paths = [str(folder), str(TOOLS), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


# -- the other end -----------------------------------------------------------------------------------------------------


def serve(packages: Sequence[str]) -> None:
    """Fork for each request on the standard input; answer with the process id, and with the exit code at the end."""
    answers = os.dup(1)
    os.dup2(2, 1)  # what libraries print is no answer
    warm_up(packages)
    os.write(answers, b"ready\n")
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os.close(answers)
            _run_tests(request)
        os.write(answers, f"{pid}\n".encode())
        os.write(answers, f"{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}\n".encode())


def warm_up(packages: Sequence[str]) -> None:
    """Import what the modules of these folders import from elsewhere, after the tests' own settings of libraries."""
    import pytest

    sys.argv = [pytest.__file__]
    if CONFTEST.is_file():
        runpy.run_path(str(CONFTEST))
    own = {path.name.removesuffix(".py") for path in Path.cwd().iterdir()}
    for module, names in sorted(set(imports(packages))):
        if module.partition(".")[0] not in own:
            with suppress(Exception):  # what is not installed, or not here, is left to the tests
                found = importlib.import_module(module)
                for name in names:
                    getattr(found, name)  # some libraries load a module when a name of it is asked for
    here = [name for name, module in sys.modules.items() if _is_own(module)]
    if here:
        raise SystemExit(f"our own modules are imported in advance, so changes to them would not be seen: {here}")


def imports(packages: Sequence[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every module that is imported somewhere in these folders, with the names that are taken from it."""
    for file in sorted(file for package in packages for file in Path(package).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((alias.name, ()) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module, tuple(alias.name for alias in node.names)


def _is_own(module: Any) -> bool:
    file = getattr(module, "__file__", None)
    return bool(file) and Path(file).is_relative_to(Path.cwd())


def _run_tests(request: dict[str, Any]) -> None:
    """In the forked process: run pytest and end."""
    code = NO_ANSWER
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.environ.update(request["variables"])
        import pytest

        code = int(pytest.main(request["arguments"]))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1:])
