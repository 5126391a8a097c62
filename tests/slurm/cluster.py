"""A throw-away SLURM of one node on this machine: no systemd, no munge, no database, two pretended GPUs."""

import os
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

CONFIGURATION = Path("/etc/slurm")  # not SLURM_CONF: job steps drop every variable of that kind
MARK = "# Made by `make slurm-test`, which removes it."
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "sinfo")
PORTS = {"slurmctld": 6817, "slurmd": 6818}

# More cores and memory than there may be: two jobs shall run at a time on any machine.
SLURM_CONF = """\
{mark}
ClusterName=throwaway
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,bf_interval=2
SlurmdParameters=config_overrides
MpiDefault=none
ReturnToService=2
KillWait=5
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=64000 Gres=gpu:2
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def obstacle() -> str | None:
    """Why no throw-away SLURM can be started here, in one line; None where it can."""
    if os.getuid() != 0:
        return "root is needed to start a SLURM: run it in a container or a virtual machine that you may break"
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    if missing:
        return f"{missing[0]} is missing: apt-get install -y --no-install-recommends slurm-wlm"
    for name in ("slurm.conf", "gres.conf"):
        path = CONFIGURATION / name
        if path.exists() and not path.read_text().startswith(MARK):
            return f"{path} is there: this machine has a SLURM already, which is left alone"
    for program, port in PORTS.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return f"port {port} is taken: a {program} runs on this machine, which is left alone"
    return None


class Cluster:
    """Its daemons and files; everything is in `folder` but two files in /etc/slurm."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.host = socket.gethostname().partition(".")[0]

    def start(self) -> None:
        """Start the daemons and wait until the node is idle. Raises RuntimeError with the logs where it stays away."""
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        # Character devices: SLURM would not count plain files. Nobody opens them.
        for i in (0, 1):
            os.mknod(self.folder / f"gpu{i}", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        CONFIGURATION.mkdir(exist_ok=True)
        conf = SLURM_CONF.format(mark=MARK, host=self.host, folder=self.folder)
        (CONFIGURATION / "slurm.conf").write_text(conf)
        (CONFIGURATION / "gres.conf").write_text(f"{MARK}\nName=gpu File={self.folder}/gpu[0-1]\n")
        for command in (["slurmctld"], ["slurmd", "-N", self.host]):
            subprocess.run(command, check=True, capture_output=True, text=True, env=_environment())
        for _ in range(60):
            if self.output("sinfo", "--noheader", "--format=%T").strip() == "idle":
                return
            time.sleep(1)
        logs = [path.read_text()[-2000:] for path in self.folder.glob("*.log")]
        raise RuntimeError("the node did not become idle within a minute\n" + "\n".join(logs))

    def stop(self) -> None:
        """Cancel what runs, stop the daemons, and remove what start() wrote outside its folder."""
        if self._pids():
            for job in self.output("squeue", "--noheader", "--format=%i").split():
                self.output("scancel", job)
            _wait(lambda: not self.output("squeue", "--noheader", "--format=%i").split(), seconds=20)
        for pid in self._pids():
            os.kill(pid, signal.SIGTERM)
        _wait(lambda: not self._pids(), seconds=20)
        for pid in self._pids():
            os.kill(pid, signal.SIGKILL)
        for name in ("slurm.conf", "gres.conf"):
            (CONFIGURATION / name).unlink(missing_ok=True)

    def output(self, *command: str) -> str:
        """What a SLURM command prints."""
        return subprocess.run(command, capture_output=True, text=True, env=_environment()).stdout

    def _pids(self) -> list[int]:
        """The daemons that live, by their pid files."""
        return [pid for name in PORTS if (pid := _daemon(self.folder / f"{name}.pid"))]


def _daemon(pid_file: Path) -> int | None:
    """The process that a pid file names; None where either is gone."""
    try:
        pid = int(pid_file.read_text())
        return pid if b"slurm" in Path(f"/proc/{pid}/cmdline").read_bytes() else None
    except (OSError, ValueError):
        return None


def _wait(condition: Callable[[], bool], seconds: int) -> None:
    for _ in range(seconds):
        if condition():
            return
        time.sleep(1)


def _environment() -> dict[str, str]:
    """Without what would point SLURM's commands elsewhere."""
    return {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
