"""A real Slurm on this machine, below one folder: a head and some nodes, in a network of their own.

    with Cluster(folder, shared=[tmp_path]) as cluster:
        cluster.call("srun", "-N2", "hostname")

    python -m tests.slurm.cluster FOLDER [NODES] [/folder/to/share …]    # by hand, until Ctrl-C

Each machine has namespaces of its own (network, processes, host name, IPC, mounts), so its own address,
/tmp and /dev/shm, and a cable to a bridge at the head. Its namespaces have no name: they are gone with its
first process, which the kernel kills when this process is gone, however that ends, and with it everything on
the machine. So nothing is left to be removed later but the folder.

Needs root, and what :data:`PACKAGES` lists.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.slurm.configuration import HEAD, address, munged, write

#: Debian's, and the programs that say whether they are there.
PACKAGES = ("slurmctld", "slurmd", "slurm-client", "slurm-wlm-basic-plugins", "munge", "iproute2")
PROGRAMS = ("slurmctld", "slurmd", "srun", "sbatch", "munged", "ip", "unshare", "nsenter", "setpriv")
INSTALL = f"apt-get install -y --no-install-recommends {' '.join(PACKAGES)}"

#: A folder that has it is a cluster's, and may be replaced.
_MARK = "a-cluster-of-the-tests"
#: How many seconds a node of ``late`` takes for true what it has seen of a folder.
_LATE = 3
_OWN = ("--net", "--uts", "--ipc", "--mount")
_CLONE_NEWPID = 0x20000000
_setns = ctypes.CDLL(None, use_errno=True).setns


def missing(*, late: bool = False) -> str:
    """Why no cluster can be made here, with the command that helps; empty where it can be."""
    if os.geteuid():
        return "a Slurm of one's own needs root: run it as root, or with sudo"
    absent = [name for name in (*PROGRAMS, *(["bindfs"] if late else [])) if not shutil.which(name)]
    if not absent:
        return ""
    return f"not on PATH: {', '.join(absent)}. Type: {INSTALL}{' bindfs' if late else ''}"


class Cluster:
    """A head and ``n1`` to ``n<nodes>``; they run between ``__enter__`` and ``__exit__``.

    Args:
        root: its folder, new, empty, or of a cluster that is gone. Shared by all machines.
        nodes: how many.
        cpus: as many has each node, whatever this machine has.
        gpus: stand-ins: character devices that a job is bound to (``CUDA_VISIBLE_DEVICES``), of no use.
        shared: folders that all machines see. Only those below ``/tmp`` need naming; they see all others.
        late: nodes see those below ``/tmp`` as over a slow network: what others write shows up to three
            seconds later. Needs ``bindfs`` and ``/dev/fuse``. ``root`` is seen at once.
        grace: seconds that a job has which is preempted.
        again: seconds before a job that was requeued may start.

    Attributes:
        names: of the nodes.
        conf: the file for ``SLURM_CONF``.
        env: the variables that commands on the head have.
        seconds: how long it took to come up.
    """

    def __init__(
        self,
        root: Path,
        *,
        nodes: int = 3,
        cpus: int = 4,
        gpus: int = 4,
        shared: Sequence[Path] = (),
        late: bool = False,
        grace: int = 2,
        again: int = 8,
    ) -> None:
        self.root, self.late = root.absolute(), late
        self.names = [f"n{number}" for number in range(1, nodes + 1)]
        self.conf = self.root / "slurm.conf"
        apart = {
            name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH"))
        }
        self.env = {**apart, "SLURM_CONF": str(self.conf)}
        self.seconds = 0.0
        self._hardware = {"cpus": cpus, "gpus": gpus, "grace": grace, "again": again}
        # What holds another is mounted before it.
        self._shared = sorted({path.absolute() for path in (self.root, *shared)}, key=lambda path: path.parts)
        self._machines: dict[str, subprocess.Popen[bytes]] = {}
        self._off: set[str] = set()
        self._cut: set[str] = set()

    # Up and down

    def __enter__(self) -> Cluster:
        began = time.monotonic()
        if self.root.exists() and any(self.root.iterdir()):
            if not (self.root / _MARK).exists():
                raise FileExistsError(f"{self.root}: found files, expected an empty folder or a cluster's")
            shutil.rmtree(self.root)
        self.root.mkdir(parents=True, exist_ok=True)
        (self.root / _MARK).touch()
        write(self.root, self.names, **self._hardware)
        (self.root / "munge" / "key").write_bytes(os.urandom(128))
        try:
            for name in (HEAD, *self.names):
                self._power(name)
            self._ip(HEAD, "link add bridge type bridge", f"addr add {self.address(HEAD)}/24 dev bridge",
                     "link set bridge up", "link set lo up")  # fmt: skip
            for name in self.names:
                self._wire(name)
            self._boot(HEAD)
            self.wait("slurmctld answers", lambda: self.call("scontrol", "ping").returncode == 0, pause=0.02)
            for name in self.names:
                self._boot(name)
            self.wait("all nodes idle", lambda: {*self.states().values()} == {"idle"}, pause=0.02)
        except BaseException:
            self.down()
            raise
        self.seconds = time.monotonic() - began
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    def down(self) -> None:
        """Switch everything off, at once; nothing of it runs when this returns. The folder stays."""
        spaces = [self._space(name) for name in self._machines if name not in self._off]
        for machine in self._machines.values():
            machine.kill()
        for machine in self._machines.values():
            _bury(machine)
        self._machines.clear()
        end = time.monotonic() + 10
        while any(_members(space) for space in spaces if space) and time.monotonic() < end:
            time.sleep(0.01)

    def _power(self, name: str) -> None:
        """Make a machine's namespaces, and wait until they are there; it is told later what to do."""
        out = (self.root / f"{name}.out").open("ab")
        apart = ["unshare", *_OWN, "--pid", "--fork", "--kill-child", "--mount-proc"]
        argv = ["setpriv", "--pdeathsig=KILL", *apart,
                sys.executable, "-IS", str(Path(__file__).with_name("machine.py"))]  # fmt: skip
        with out:
            self._machines[name] = machine = subprocess.Popen(
                argv, env=self.env, cwd="/", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=out,
                start_new_session=True,
            )  # fmt: skip
        assert machine.stdout
        if machine.stdout.readline() != b"\n":
            raise RuntimeError(f"{name} could not be made: {self._logs()}")

    def _boot(self, name: str) -> None:
        """Tell a machine that is there and wired what it is."""
        first, tmp = [], self.root / "tmp"  # each machine mounts its own there, and sees only that
        first.append(["mount", "-t", "tmpfs", "-o", "mode=1777", "tmp", str(tmp)])
        for path in self._shared:
            if path.is_relative_to("/tmp"):
                there = f"{tmp}/{path.relative_to('/tmp')}"
                first.append(["mkdir", "-p", there])
                first.append(["mount", "--bind", str(path), there])
                if self.late and name != HEAD and path != self.root:
                    first[-1] = ["bindfs", "-o", ",".join(
                        f"{what}_timeout={_LATE}" for what in ("attr", "entry", "negative")
                    ), str(path), there]  # fmt: skip
        first.append(["mount", "--rbind", str(tmp), "/tmp"])
        first.append(["mount", "-t", "tmpfs", "shm", "/dev/shm"])
        first.append(["mount", "--bind", str(self.root / "hosts"), "/etc/hosts"])
        if name == HEAD:
            first.append(munged(self.root))
            daemon = ["slurmctld", "-D", "-i"]
        else:
            daemon = ["slurmd", "-D", "-N", name]
        told = json.dumps({"name": name, "first": first, "daemon": daemon})
        machine = self._machines[name]
        assert machine.stdin
        with contextlib.suppress(BrokenPipeError):  # it is gone, which wait() says
            machine.stdin.write(told.encode() + b"\n")
            machine.stdin.close()

    def _wire(self, name: str) -> None:
        """Lay a cable from the bridge to a node."""
        node = self._machines[name].pid
        self._ip(HEAD, f"link add {name} type veth peer name eth0 netns {node}",
                 f"link set {name} master bridge up")  # fmt: skip
        self._ip(name, "link set lo up", f"addr add {self.address(name)}/24 dev eth0", "link set eth0 up")

    def _ip(self, name: str, *lines: str) -> None:
        """Run lines of ``ip`` in a machine's network; process numbers in them are those of here."""
        done = subprocess.run(
            ["nsenter", f"--target={self._machines[name].pid}", "--net", "ip", "-batch", "-"],
            input="\n".join(lines) + "\n", capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{name}: ip: {done.stderr.strip()}, of {lines}")

    # What is done to machines

    def switch_off(self, name: str) -> None:
        """Switch a node off: its processes are gone, its connections reset. ``cut`` it first for silence."""
        space = self._space(name)
        self._off.add(name)
        self._machines[name].kill()
        _bury(self._machines[name])
        self._until(f"{name} has no process left", lambda: not _members(space))

    def start(self, name: str) -> None:
        """Start a node that was switched off, with an empty /tmp and its cable plugged in."""
        _bury(self._machines[name])
        with contextlib.suppress(RuntimeError):  # its cable ends with its network, some time later
            self._ip(HEAD, f"link del {name}")
        self._power(name)
        self._off.discard(name)
        self._cut.discard(name)
        self._wire(name)
        self._boot(name)

    def cut(self, name: str) -> None:
        """Pull a node's network cable: what is sent is lost, nothing is reset."""
        self._ip(HEAD, f"link set {name} down")
        self._cut.add(name)

    def mend(self, name: str) -> None:
        """Plug a node's cable in again."""
        self._ip(HEAD, f"link set {name} up")
        self._cut.discard(name)

    def repair(self) -> list[str]:
        """Start what is off or dead, mend what is cut; the names."""
        self._off |= {name for name in self.names if self._machines[name].poll() is not None}
        broken = sorted(self._off | self._cut)
        for name in broken:
            if name in self._off:
                self.start(name)
            else:
                self.mend(name)
        return broken

    # What is run and asked

    def address(self, name: str) -> str:
        """The address of a node, or of ``head``."""
        return address(name, self.names)

    def prefix(self) -> list[str]:
        """What to write before a command that is to run on the head, in the folder of here.

        Signals do not reach the command: what they end waits for it, and it is killed then. The process of
        ``popen`` is the command itself.
        """
        target = f"--target={self._machines[HEAD].pid}"
        words = [f"--pid=/proc/{self._machines[HEAD].pid}/ns/pid_for_children", f"--wdns={os.getcwd()}"]
        return ["nsenter", target, *_OWN, *words, "setpriv", "--pdeathsig=KILL",
                "env", f"SLURM_CONF={self.conf}"]  # fmt: skip

    def popen(self, *argv: str, cwd: Path | None = None, **env: str) -> subprocess.Popen[str]:
        """Start a command on the head, in a session of its own; its stdout and stderr are one pipe.

        Its ``pid`` is the command's own, as seen from here: signals reach it, and its status is its own.
        """
        return self._on_head(argv, cwd, env, subprocess.STDOUT)

    def call(
        self, *argv: str, timeout: float = 60, cwd: Path | None = None, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the head until it ends; it reads nothing.

        Raises:
            subprocess.TimeoutExpired: it and its session were killed after ``timeout`` seconds.
        """
        with self._on_head(argv, cwd, env, subprocess.PIPE) as process:
            try:
                out, err = process.communicate("", timeout=timeout)
            except BaseException:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                raise
        return subprocess.CompletedProcess(argv, process.returncode, out, err)

    def _on_head(
        self, argv: Sequence[str], cwd: Path | None, env: Mapping[str, str], stderr: int
    ) -> subprocess.Popen[str]:
        head = self._machines[HEAD].pid
        # A process cannot change its own process namespace, only that of its next children. Were nsenter to
        # do it, it would have to stay as the parent, and signals would end there.
        with open(f"/proc/{head}/ns/pid_for_children") as there, open("/proc/self/ns/pid") as here:
            _enter(there.fileno())
            try:
                return subprocess.Popen(
                    ["nsenter", f"--target={head}", *_OWN, f"--wdns={cwd or os.getcwd()}", *argv],
                    env={**self.env, **env}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr,
                    text=True, start_new_session=True,
                )  # fmt: skip
            finally:
                _enter(here.fileno())

    def states(self) -> dict[str, str]:
        """What Slurm says of each node: ``idle``, ``alloc``, ``down*`` (it does not answer) and others."""
        said = self.call("sinfo", "--noheader", "--Node", "--partition=main", "--format=%N %t").stdout
        return {name: state for name, state in (line.split() for line in said.splitlines())}  # noqa: C416 - mypy

    def queue(self) -> dict[str, str]:
        """The state of each job, or task of an array, that is not over, by its number."""
        said = self.call("squeue", "--noheader", "--array", "--format=%i %T").stdout
        return {number: state for number, state in (line.split() for line in said.splitlines())}  # noqa: C416

    def job(self, number: str) -> dict[str, str]:
        """What ``scontrol show job`` says of a job, also of one that was over less than ten minutes ago."""
        said = self.call("scontrol", "show", "job", "--oneliner", number).stdout
        return dict(re.findall(r"(\S+?)=(\S*)", said))

    def pids(self, name: str, pattern: str) -> list[int]:
        """The processes of a node, or of ``head``, whose command line matches somewhere; numbers of here.

        Neither a machine's first process nor one that is dead and not yet waited for is among them.
        """
        return [pid for pid, command in self.commands(name).items() if re.search(pattern, command)]

    def commands(self, name: str) -> dict[int, str]:
        """All processes of a machine, as ``pids`` has them, with their command lines."""
        return _members(self._space(name))

    def _space(self, name: str) -> str:
        with contextlib.suppress(OSError):
            return os.readlink(f"/proc/{self._machines[name].pid}/ns/pid_for_children")
        return ""

    def wait(
        self, what: str, condition: Callable[[], object], seconds: float = 30, *, pause: float = 0.05
    ) -> None:
        """Wait until a condition holds.

        Raises:
            RuntimeError: a daemon is dead that was not switched off; with the logs.
            TimeoutError: it did not in that many seconds; with what was waited for, the nodes and the queue.
        """
        self._until(what, condition, seconds, pause)

    def _until(
        self, what: str, condition: Callable[[], object], seconds: float = 30, pause: float = 0.05
    ) -> None:
        end = time.monotonic() + seconds
        while not condition():
            for name, machine in self._machines.items():
                if name not in self._off and machine.poll() is not None:
                    dead = f"{name} is dead (exit status {machine.returncode})"
                    raise RuntimeError(f"{dead}, waiting for: {what}\n{self._logs()}")
            if time.monotonic() > end:
                now = f"nodes: {self.states()}; queue: {self.queue()}"
                raise TimeoutError(f"not in {seconds:g} s: {what}; {now}\n{self._logs()}")
            time.sleep(pause)

    def _logs(self) -> str:
        """The end of what each daemon has said."""
        paths = [*sorted(self.root.glob("*.out")), *self.root.glob("munge/log")]
        said = {path: path.read_text(errors="replace").splitlines()[-12:] for path in paths}
        return "\n".join("\n  ".join([f"{path}:", *lines]) for path, lines in said.items() if lines)


def _enter(space: int) -> None:
    """Let what this thread forks from now on be in the process namespace of an open file."""
    if _setns(space, _CLONE_NEWPID):
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


def _bury(machine: subprocess.Popen[bytes]) -> None:
    machine.wait()
    for pipe in (machine.stdin, machine.stdout):
        if pipe:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def _members(space: str) -> dict[int, str]:
    """The command lines of what lives in a process namespace, but for its first process."""
    found = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):  # it ended meanwhile
            if not entry.name.isdigit() or os.readlink(entry / "ns" / "pid") != space:
                continue
            (numbers,) = re.findall(r"^NSpid:\s+(.*)$", (entry / "status").read_text(), re.MULTILINE)
            command = (entry / "cmdline").read_bytes().rstrip(b"\0")
            if command and numbers.split()[-1] != "1":
                found[int(entry.name)] = command.replace(b"\0", b" ").decode(errors="replace")
    return found


def main(words: Sequence[str]) -> int:
    """Run a cluster until SIGTERM or Ctrl-C."""
    if not words or words[0].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    if why := missing():
        print(f"tests.slurm: {why}", file=sys.stderr)
        return 2
    nodes = next((int(word) for word in words[1:] if word.isdigit()), 3)
    shared = [Path(word) for word in words[1:] if word.startswith("/")]
    signals = {signal.SIGTERM, signal.SIGINT}
    with Cluster(Path(words[0]), nodes=nodes, shared=shared) as cluster:
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # the second is no reason to leave in the middle
        print(f"# {nodes} nodes after {cluster.seconds:.2f} s; SIGTERM or Ctrl-C ends them. On the head:")
        print(*cluster.prefix())
        print(f"export SLURM_CONF={cluster.conf}", flush=True)
        signal.sigwait(signals)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
