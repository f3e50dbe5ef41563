"""Where the sessions get torch from: the real nox and the real uv, in a world of two package indexes."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import zipfile
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from harness.machine.hardware import driver_here

pytestmark = [
    pytest.mark.tools,
    pytest.mark.skipif(
        sys.platform != "linux" or driver_here(), reason="missing hardware: Linux without an NVIDIA driver"
    ),
]

ROOT = Path(__file__).parents[1]
PYTORCH, OURS = "download.pytorch.org", "packages.example"
SENTENCE = "PyTorch's index gives no torch==2.13.0 without CUDA"

PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "resume-harness"
version = "1"

[dependency-groups]
dev = ["torch==2.13.0"]
docs = []
"""
BACKEND = """
import shutil

def build_editable(folder, config_settings=None, metadata_directory=None):
    return shutil.copy("resume_harness-1-py3-none-any.whl", folder).rpartition("/")[2]
"""


def wheel(name: str, version: str) -> tuple[str, bytes]:
    """The smallest wheel there is."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    digest = {path: urlsafe_b64encode(hashlib.sha256(text.encode()).digest()) for path, text in files.items()}
    lines = [f"{path},sha256={digest[path].decode().rstrip('=')},{len(files[path])}" for path in files]
    files[f"{info}/RECORD"] = "\n".join([*lines, f"{info}/RECORD,,", ""])
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return f"{name}-{version}-py3-none-any.whl", made.getvalue()


def index(page: str, version: str) -> dict[str, bytes]:
    """An index of one package in one version."""
    name, content = wheel("torch", version)
    path = f"/{name.replace('+', '%2B')}"
    return {page: f'<a href="{path}">{name}</a>'.encode(), path: content}


class World:
    """All that can be reached, through a proxy: PyTorch's index has one build, every other host another."""

    def __init__(self, folder: Path) -> None:
        self.down: set[str] = set()
        self.asked: list[str] = []
        self.folder = folder
        import trustme  # not there with the lowest versions, where this module is only collected

        self.authority = trustme.CA()
        self.authority.cert_pem.write_to_path(str(folder / "authority.pem"))
        self.pytorch = index("/whl/cpu/torch/", "2.13.0+cpu")
        self.usual = index("/simple/torch/", "2.13.0")
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Proxy, self))

    def as_host(self, host: str, connection: socket.socket) -> socket.socket:
        """The connection, as the host would go on with it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert(host).configure_cert(context)
        return context.wrap_socket(connection, server_side=True)

    def nox(self, *words: str, path: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        """Let the sessions install what they need, and no more."""
        said = ("UV_", "PIP_", "NOX", "CI", "HTTP", "ALL_PROXY", "NO_PROXY", "SSL_")
        env = {name: value for name, value in os.environ.items() if not name.upper().startswith(said)}
        env |= {
            "HOME": str(self.folder),
            "HTTPS_PROXY": f"http://127.0.0.1:{self.server.server_port}",
            "SSL_CERT_FILE": str(self.folder / "authority.pem"),
            "UV_CACHE_DIR": str(self.folder / "cache"),
            "UV_PYTHON_DOWNLOADS": "never",
            "PATH": f"{path}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "NO_COLOR": "1",
        }
        return subprocess.run(
            [sys.executable, "-m", "nox", "--install-only", *words],
            cwd=self.folder / "project", env=env | environment, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def installed(self) -> list[str]:
        """The torch of every environment."""
        found = (self.folder / "project" / ".nox").rglob("torch-*.dist-info")
        return [path.stem.removeprefix("torch-") for path in found]


class Proxy(BaseHTTPRequestHandler):
    """Answers ``CONNECT`` as the host that is asked for."""

    protocol_version = "HTTP/1.1"

    def __init__(self, world: World, *arguments: object) -> None:
        self.world = world
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_CONNECT(self) -> None:
        host = self.path.partition(":")[0]
        self.world.asked.append(host)
        if host in self.world.down:
            self.send_error(502)
            return
        self.send_response(200)
        self.end_headers()
        try:
            self.connection = self.world.as_host(host, self.connection)
        except OSError:
            self.close_connection = True
            return
        self.rfile = self.connection.makefile("rb")
        self.wfile = self.connection.makefile("wb", buffering=0)
        self.close_connection = False

    def do_GET(self) -> None:
        files = self.world.pytorch if self.headers["Host"] == PYTORCH else self.world.usual
        content = files.get(self.path)
        self.send_response(404 if content is None else 200)
        self.send_header("Content-Type", "application/zip" if self.path.endswith(".whl") else "text/html")
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content or b"")

    do_HEAD = do_GET  # noqa: N815 - the base class's word

    def finish(self) -> None:
        super().finish()
        self.connection.close()  # the server closes what it has accepted, not what was wrapped around that

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's word
        pass


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Our noxfile beside a project that needs nothing but torch."""
    project = tmp_path / "project"
    shutil.copytree(ROOT / "harness", project / "harness", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "noxfile.py", project)
    (project / "pyproject.toml").write_text(PYPROJECT)
    (project / "backend.py").write_text(BACKEND)
    name, content = wheel("resume_harness", "1")
    (project / name).write_bytes(content)
    case = project / "test_cases" / "gpt" / "first"
    case.mkdir(parents=True)
    (case / "model_config.yaml").touch()
    made = World(tmp_path)
    thread = threading.Thread(target=made.server.serve_forever)
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


@pytest.mark.parametrize("session", ["faults", "case(cpu)(dev,first)"])
def test_without_a_gpu_torch_is_the_build_without_cuda(world: World, session: str) -> None:
    done = world.nox("-s", session)
    assert done.returncode == 0, done.stderr
    assert world.installed() == ["2.13.0+cpu"]
    assert SENTENCE not in done.stderr


@pytest.mark.parametrize("build", ["2.13.0+cpu", "2.13.0"])
def test_what_is_installed_stays_and_pytorch_s_index_is_not_asked_again(world: World, build: str) -> None:
    if build == "2.13.0":
        world.down.add(PYTORCH)
    world.nox("-s", "faults")
    assert world.installed() == [build]
    world.down.add(PYTORCH)
    world.asked.clear()
    done = world.nox("-s", "faults")
    assert done.returncode == 0, done.stderr
    assert world.installed() == [build]
    assert PYTORCH not in world.asked
    assert SENTENCE not in done.stderr


def test_where_pytorch_s_index_does_not_answer_it_is_the_usual_one_and_a_sentence(world: World) -> None:
    world.down.add(PYTORCH)
    done = world.nox("-s", "faults")
    assert done.returncode == 0, done.stderr
    assert world.installed() == ["2.13.0"]
    assert done.stderr.count(SENTENCE) == 1


def test_where_pytorch_s_wheels_are_refused_it_is_the_usual_index_too(world: World) -> None:
    world.pytorch = {path: content for path, content in world.pytorch.items() if not path.endswith(".whl")}
    done = world.nox("-s", "faults")
    assert done.returncode == 0, done.stderr
    assert world.installed() == ["2.13.0"]
    assert SENTENCE in done.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [("UV_DEFAULT_INDEX", f"https://{OURS}/simple"), ("UV_INDEX", f"https://{OURS}/simple"),
     ("UV_FIND_LINKS", "wheels"), ("PIP_FIND_LINKS", "wheels")],
)  # fmt: skip
def test_who_says_where_packages_come_from_is_not_overruled(world: World, name: str, value: str) -> None:
    (world.folder / "project" / "wheels").mkdir()
    (world.folder / "project" / "wheels" / "torch-2.13.0+disk-py3-none-any.whl").write_bytes(
        wheel("torch", "2.13.0+disk")[1]
    )
    done = world.nox("-s", "faults", **{name: value})
    assert done.returncode == 0, done.stderr
    assert world.installed() == ["2.13.0+disk" if value == "wheels" else "2.13.0"]
    assert PYTORCH not in world.asked


def test_who_insists_on_a_build_gets_it_or_an_error(world: World) -> None:
    world.down.add(PYTORCH)
    done = world.nox("-s", "faults", UV_TORCH_BACKEND="cpu", UV_HTTP_RETRIES="0")
    assert done.returncode == 1
    assert f"https://{PYTORCH}/whl/cpu/torch/" in done.stderr
    assert SENTENCE not in done.stderr
    assert world.installed() == []


def test_beside_a_driver_torch_is_the_one_that_knows_it(world: World, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "nvidia-smi").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "bin" / "nvidia-smi").chmod(0o755)
    done = world.nox("-s", "faults", path=str(tmp_path / "bin"))
    assert done.returncode == 0, done.stderr
    assert world.installed() == ["2.13.0"]
    assert PYTORCH not in world.asked


def test_a_session_without_torch_asks_for_none(world: World) -> None:
    done = world.nox("-s", "docs")
    assert done.returncode == 0, done.stderr
    assert world.asked == []
