"""Build the wheel, install it into an empty environment outside the repository, and use it from there.

    python benchmarks/installed_wheel.py               # as users get it, with the pinned versions
    python benchmarks/installed_wheel.py --keep FOLDER # leave the environment and the run there

Runs ``tandem pipeline`` with the smoke recipe, and ``tandem desk``, which has to answer over HTTP. Ends with exit
code 1 where one of them does not work.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SERVES_WITHIN_SECONDS = 120.0


def install(folder: Path) -> Path:
    """A new environment in ``folder`` with the wheel and the pinned versions; returns its folder of commands."""
    wheels = folder / "wheels"
    build = ["-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(wheels), str(ROOT)]
    subprocess.run([sys.executable, *build], check=True)
    (wheel,) = wheels.glob("tandem_rlhf-*.whl")
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    commands = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
    pip = [str(commands / "python"), "-m", "pip", "install", "-q"]
    torch = next(line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch=="))
    if subprocess.run([*pip, "--no-deps", f"{torch}+cpu"], capture_output=True).returncode:
        print("no CPU build of torch found; taking the default build")
    subprocess.run([*pip, "-c", str(ROOT / "constraints.txt"), str(wheel)], check=True)
    return commands


def run_pipeline(commands: Path, folder: Path) -> None:
    """The smoke recipe, from a folder that holds nothing."""
    recipe = ["--config", "configs/smoke.yaml", f"run_dir={folder / 'run'}"]
    subprocess.run([str(commands / "tandem"), "pipeline", *recipe], check=True, cwd=folder, env=environment())
    assert (folder / "run" / "report.html").is_file()


def serve_desk(commands: Path, folder: Path) -> None:
    """The annotation app on the run that was made: its first page answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(commands / "tandem"), "desk", "--run", str(folder / "run"), "--pairs-only", f"port={port}"]
    with subprocess.Popen(command, cwd=folder, env=environment()) as server:
        try:
            wait_for(f"http://127.0.0.1:{port}/", server)
        finally:
            server.terminate()
            server.wait(timeout=30)


def wait_for(address: str, server: subprocess.Popen[bytes]) -> None:
    """Until the address answers; raise ``RuntimeError`` if it does not, or the server has ended."""
    limit = time.monotonic() + SERVES_WITHIN_SECONDS
    while time.monotonic() < limit and server.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                print(f"tandem desk: {address} answers {answer.status}")
                return
        except urllib.error.HTTPError as refused:  # without the link's key: it asks who is there, so it serves
            if refused.code >= 500:
                raise
            print(f"tandem desk: {address} answers {refused.code}")
            return
        except OSError:
            time.sleep(0.5)
    raise RuntimeError(f"tandem desk does not answer at {address} (exit code {server.poll()})")


def environment() -> dict[str, str]:
    """This process's environment without the paths to the repository."""
    return {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}


def main() -> None:
    """Install, run, serve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, help="use this folder and leave it; default: a temporary one")
    arguments = parser.parse_args()
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix="tandem-wheel-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        commands = install(folder)
        run_pipeline(commands, folder)
        serve_desk(commands, folder)
    finally:
        if arguments.keep is None:
            shutil.rmtree(folder)
    print("the wheel works")


if __name__ == "__main__":
    main()
