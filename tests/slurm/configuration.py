"""What the daemons of the cluster read: ``slurm.conf``, ``gres.conf``, ``cgroup.conf``, and who is where."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

HEAD = "head"
#: Nobody else is in this network: it ends at the cables between the machines.
NETWORK = "10.0.0."

#: By what each is for. Values that are times are in seconds.
_SETTINGS = {
    "who and where": {
        "ClusterName": "tests",
        "SlurmUser": "root",
        "SlurmdUser": "root",
        "SlurmctldPort": "6817",
        "SlurmdPort": "6818",
        "CredType": "cred/munge",
        "AuthType": "auth/munge",
    },
    "no cgroups, no data base, no MPI: none of it is looked at, and not every container has it": {
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        "JobAcctGatherType": "jobacct_gather/none",
        "AccountingStorageType": "accounting_storage/none",
        "MpiDefault": "none",
        "SwitchType": "switch/none",
    },
    "a node has the processors and GPUs that it says, not those of this machine": {
        "SlurmdParameters": "config_overrides",
        "GresTypes": "gpu",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_Core",
    },
    "a test waits for the scheduler": {
        "SchedulerType": "sched/backfill",
        "SchedulerParameters": "batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1",
    },
    "as on clusters that preempt": {
        "PreemptType": "preempt/partition_prio",
        "PreemptMode": "REQUEUE",
        "JobRequeue": "1",
    },
    "what fails is noticed soon, and a node that is back is taken": {
        "ReturnToService": "2",
        "SlurmctldTimeout": "10",
        "SlurmdTimeout": "5",
        "MessageTimeout": "5",
        "UnkillableStepTimeout": "10",
        "KillWait": "3",
        "KillOnBadExit": "1",
        "InactiveLimit": "0",
        "WaitTime": "0",
        "MinJobAge": "600",  # how long scontrol knows of a job that is over
    },
}


def address(name: str, names: Sequence[str]) -> str:
    """The address of a machine in the cluster's network."""
    return f"{NETWORK}{254 if name == HEAD else 1 + names.index(name)}"


def write(root: Path, names: Sequence[str], *, cpus: int, gpus: int, grace: int, again: int) -> None:
    """Write the files below ``root``, and the folders that the daemons take for granted.

    Args:
        root: the folder of the cluster.
        names: the nodes'.
        cpus: how many each node says it has.
        gpus: stand-ins, likewise.
        grace: seconds between the TERM and the KILL of a job that is preempted.
        again: seconds that a job waits after it was requeued. Slurm takes for it how long a job's credential
            is good, so that it is also how long a step may take to start.
    """
    for folder in ("munge", "state", "tmp", *(f"spool/{name}" for name in names)):
        (root / folder).mkdir(parents=True, mode=0o755)
    lines = [
        f"SlurmctldHost={HEAD}({address(HEAD, names)})",
        f"AuthInfo=socket={root}/munge/socket,cred_expire={again}",
        f"StateSaveLocation={root}/state",
        f"SlurmdSpoolDir={root}/spool/%n",
        f"SlurmctldPidFile={root}/slurmctld.pid",
        f"SlurmdPidFile={root}/slurmd-%n.pid",
        f"SlurmctldLogFile={root}/slurmctld.log",
        f"SlurmdLogFile={root}/slurmd-%n.log",
        "JobCompType=jobcomp/filetxt",
        f"JobCompLoc={root}/jobs.txt",
    ]
    for why, settings in _SETTINGS.items():
        lines += [f"# {why}", *(f"{key}={value}" for key, value in settings.items())]
    for name in names:
        lines.append(
            f"NodeName={name} NodeAddr={address(name, names)} CPUs={cpus} RealMemory=4000 Gres=gpu:{gpus}"
        )
    common = "Nodes=ALL State=UP MaxTime=60"
    lines += [
        f"PartitionName=main {common} Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime={grace}",
        f"PartitionName=urgent {common} PriorityTier=10 PreemptMode=OFF",
    ]
    (root / "slurm.conf").write_text("\n".join(lines) + "\n")
    # It asks for a plugin although it uses none, and the newer one talks to systemd.
    (root / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
    for number in range(gpus):  # a character device whose name ends in a number, else no job is told of it
        (root / f"gpu{number}").symlink_to("/dev/null")
    (root / "gres.conf").write_text("".join(f"Name=gpu File={root}/gpu{i}\n" for i in range(gpus)))
    # A node looks itself up by its name.
    rows = [f"{address(name, names)} {name}" for name in (HEAD, *names)]
    (root / "hosts").write_text("\n".join(["127.0.0.1 localhost", *rows]) + "\n")
    (root / "munge" / "key").touch(mode=0o600)


def munged(root: Path) -> list[str]:
    """The argument list that starts munged and comes back when it answers.

    Its paths are given, since Debian's are of a user who may not be there; ``--force`` takes folders of root.
    """
    folder = root / "munge"
    files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    return [
        "munged",
        "--force",
        "--num-threads=4",
        *(f"--{key}={folder / name}" for key, name in files.items()),
    ]
