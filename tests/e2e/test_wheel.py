"""The wheel works where nothing else of the project is."""

import asyncio
import base64
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.deployment import KEY, deploy, event, eventually, make_settings

ROOT = Path(__file__).parents[2]
UID = 10_001
# Every mount but the kernel's own becomes read-only; then a user that is not root, and has no rights beyond its own.
CONFINE = f"""
for mount in $(awk '$5 !~ "^/(proc|sys|dev)" {{print $5}}' /proc/self/mountinfo); do
  mount -o remount,ro,bind "$mount" || exit 9
done
exec unshare --user --map-user={UID} --map-group={UID} -- "$@"
"""
WRITES = """
import os, sys, tempfile
for folder in (".", "/tmp", "/var/tmp", os.path.expanduser("~"), sys.prefix):
    try:
        open(os.path.join(folder, "written"), "w")
    except OSError:
        continue
    sys.exit("can write to " + folder)
print(os.getuid(), os.getgid())
"""


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A virtual environment with the locked run-time packages and the wheel, and none of the source tree."""
    folder = tmp_path_factory.mktemp("bare")
    run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], cwd=ROOT)
    run([sys.executable, "-m", "venv", str(folder / "venv")])
    python = folder / "venv/bin/python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run([*pip, "--require-hashes", "-r", str(ROOT / "deploy/requirements.lock")])
    run([*pip, "--no-deps", str(next(folder.glob("*.whl")))])
    return folder


def run(command, **options):
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=170, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def environ():
    return {name: value for name, value in os.environ.items() if not name.startswith(("DISPATCHER_", "PYTHON"))}


def test_the_catalogue_is_in_the_wheel(bare):
    """The event catalogue is found without the source tree."""
    program = "from dispatcher.operations.catalogue import load_catalogue; print(len(load_catalogue(None).types))"
    assert run([bare / "venv/bin/python", "-c", program], cwd=bare, env=environ()) == "16\n"


def test_the_console_is_in_the_wheel(bare):
    """Its templates, style sheet and script are found without the source tree; its pictures stay out."""
    program = (
        "from dispatcher.console.assets import Assets; from dispatcher.console.drawing import Drawing; "
        "from importlib.resources import files; assets = Assets(); "
        "print(len(Drawing(assets).templates()) > 10, *sorted(assets.urls), "
        "files('dispatcher.console').joinpath('pictures').is_dir())"
    )
    shown = run([bare / "venv/bin/python", "-c", program], cwd=bare, env=environ())
    assert shown == "True console.css console.js icon.svg False\n"


def test_it_starts_and_says_what_is_missing(bare):
    """A worker without addresses ends with exit code 2 and a line for each of them."""
    done = subprocess.run(
        [bare / "venv/bin/dispatcher", "worker"], capture_output=True, text=True, check=False, cwd=bare, env=environ()
    )
    assert done.returncode == 2
    assert "DISPATCHER_KAFKA_BOOTSTRAP_SERVERS" in done.stderr


def test_local_mode_says_which_packages_it_needs(bare):
    """`run --local` without the packages of local mode names the command that installs them."""
    done = subprocess.run(
        [bare / "venv/bin/dispatcher", "run", "--local"],
        capture_output=True, text=True, check=False, cwd=bare, env=environ(),
    )  # fmt: skip
    assert done.returncode == 1
    assert "webhook-dispatcher[local]" in done.stderr


@pytest.fixture(scope="module")
def confined(bare):
    """The beginning of a command that runs as another user where nothing can be written; else the test is skipped."""
    prefix = ["unshare", "--user", "--map-root-user", "--mount", "--", "sh", "-c", CONFINE, "sh"]
    if shutil.which("unshare") is None:
        pytest.skip("this machine has no unshare")
    tried = subprocess.run(
        [*prefix, bare / "venv/bin/python", "-c", WRITES], capture_output=True, text=True, check=False, cwd=bare
    )
    if tried.returncode:
        pytest.skip(f"this machine lets nobody make a read-only file system: {tried.stderr[-200:]}")
    assert tried.stdout == f"{UID} {UID}\n"
    return prefix


@asynccontextmanager
async def serving(command, environment):
    """Run a role until its `/healthz` and `/readyz` say that it is well; at the end it must drain on SIGTERM."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = str(found.getsockname()[1])
    environment = {**environment, "DISPATCHER_METRICS_PORT": port}
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, cwd="/", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )

    async def well():
        assert process.returncode is None, (await process.stdout.read()).decode()
        return [await asyncio.to_thread(_status, port, path) for path in ("/healthz", "/readyz")]

    try:
        await eventually(well, lambda found: found == [200, 200], "it is well", 60)
        yield process, environment
        process.terminate()
        said, _ = await asyncio.wait_for(process.communicate(), 40)
        assert process.returncode == 0, said.decode()
        assert b"Read-only file system" not in said
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _status(port, path):
    try:
        with socket.create_connection(("127.0.0.1", int(port)), timeout=5) as sock:
            sock.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            return int(sock.recv(100).split()[1])
    except OSError:
        return 0


async def test_it_runs_as_another_user_on_a_read_only_file_system(bare, confined, services, unique_name):
    """Worker and API of the wheel deliver, and pass the image's health check, where they may write nowhere at all."""
    settings = make_settings(services.kafka_bootstrap, services.mongo_uri, unique_name("wheel"))
    dispatcher = [*confined, str(bare / "venv/bin/python"), "-m", "dispatcher"]
    async with deploy(settings) as deployment:
        settable = {name: value for name, value in deployment.process().environment.items() if "DISPATCHER_" in name}
        environment = environ() | settable | {"DISPATCHER_API_PORT": "0", "PYTHONDONTWRITEBYTECODE": "1"}
        assert base64.b64encode(KEY).decode() in environment["DISPATCHER_ENCRYPTION_KEYS"]
        webhook = await deployment.webhook("/read-only")
        roles = [serving([*dispatcher, role], environment) for role in ("worker", "api")]
        async with roles[0] as (worker, seen), roles[1]:
            assert str(UID) in _uid_map(worker.pid)
            await deployment.publish(event("read-only"))
            await deployment.until_logged(deployment.delivery_id("evt_read-only", webhook), webhook, "delivered")
            assert await health_check(seen) == 0
        assert await health_check(seen) != 0


def _uid_map(pid):
    return Path(f"/proc/{pid}/uid_map").read_text().split()


def _health_check():
    text = (ROOT / "deploy/Dockerfile").read_text()
    return json.loads(re.search(r"HEALTHCHECK .*?CMD (\[.*?\])$", text, re.MULTILINE | re.DOTALL)[1])


async def health_check(environment):
    """Run the image's health check; gives its exit code."""
    check = await asyncio.create_subprocess_exec(
        sys.executable, *_health_check()[1:], env=environment, stderr=asyncio.subprocess.DEVNULL
    )
    return await check.wait()
