"""The stand-in for a GPU, row by row, in processes of its own: it cannot be taken back."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from harness.cases import Case, load_case
from harness.errors import CaseError, HarnessError, UsageError
from harness.protocol.plan import Options, prepare
from harness.protocol.refusal import command_line
from harness.trainers.megatron import on_cpu
from harness.trainers.megatron.adapter import MegatronTrainer, least_world
from harness.trainers.megatron.on_cpu import launch

ROOT = Path(__file__).parents[1]
_INSTALLED = "from harness.trainers.megatron.on_cpu.table import install; install()\n"


def run(text: str, **env: str) -> subprocess.CompletedProcess[str]:
    """A Python of its own, behind the stand-in."""
    return subprocess.run(
        [sys.executable, "-c", _INSTALLED + dedent(text)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


def told(text: str, **env: str) -> Any:
    """What it prints last, as JSON."""
    done = run("import json, torch\n" + dedent(text), **env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


# -- the rows --------------------------------------------------------------------------------------


@pytest.mark.torch
def test_what_is_made_on_a_gpu_or_moved_to_one_is_on_the_cpu() -> None:
    found = told("""
        import io
        d = torch.cuda.current_device()
        made = [
            torch.zeros(2, device="cuda"), torch.empty(2, device=d), torch.tensor([1.0], device="cuda:0"),
            torch.rand(2, device=torch.device("cuda", 1), pin_memory=True), torch.zeros(1).cuda(),
            torch.zeros(1).to("cuda"), torch.zeros(1).to(d), torch.zeros(1).to("cuda", torch.half),
            torch.zeros(1).new_empty(3, device="cuda"), torch.nn.Linear(2, 2).cuda().weight,
            torch.nn.Linear(2, 2).to(torch.device("cuda")).bias,
            torch.ones_like(torch.ones(1), device="cuda"),
        ]
        file = io.BytesIO()
        torch.save(torch.ones(1), file)
        file.seek(0)
        made.append(torch.load(file, map_location="cuda:0"))
        devices = sorted({str(one.device) for one in made})
        print(json.dumps([devices, made[7].dtype == torch.half, made[0].type()]))
    """)
    assert found == [["cpu"], True, "torch.cuda.FloatTensor"]


@pytest.mark.torch
def test_there_is_a_gpu_a_rank_that_does_at_once_whatever_it_is_asked() -> None:
    found = told("""
        c = torch.cuda
        stream, event = c.Stream(), c.Event(enable_timing=True)
        with c.stream(stream):
            event.record()
            torch.ones(1, device="cuda").record_stream(stream)
        c.current_stream().wait_stream(stream)
        c.synchronize()
        print(json.dumps([
            c.is_available(), c.device_count(), c.current_device(), c.get_device_capability(),
            event.query(), event.elapsed_time(c.current_stream().record_event()) >= 0,
            c.max_memory_allocated(), c.memory_stats()["anything"], c.is_current_stream_capturing(),
        ]))
    """, LOCAL_WORLD_SIZE="4")  # fmt: skip
    assert found == [True, 4, 0, [8, 0], True, True, 0, 0, False]


@pytest.mark.torch
@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ("torch.cuda.memory_summary()", "torch.cuda.memory_summary"),
        ("torch.cuda.CUDAGraph()", "torch.cuda.CUDAGraph"),
        ("torch.cuda.no_such_thing", "torch.cuda.no_such_thing"),
        ("torch._C._cuda_memorySnapshot(None)", "torch._C._cuda_memorySnapshot"),
        ("torch.bartlett_window(3, device='cuda')", "<string>:3"),
    ],
)
def test_what_no_row_answers_is_named_and_so_is_the_place_of_its_row(asked: str, named: str) -> None:
    done = run(f"import torch\n{asked}\n")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert named in last
    assert "a row is missing in harness/trainers/megatron/on_cpu" in last


@pytest.mark.torch
def test_what_is_drawn_on_the_host_leaves_the_devices_stream_where_it_is_and_the_other_way_round() -> None:
    found = told("""
        def state():
            return [torch.get_rng_state().tolist(), torch.cuda.get_rng_state().tolist()]
        def moved(draw):
            before = state()
            draw()
            return [a != b for a, b in zip(before, state())]
        torch.manual_seed(3)
        alike = state()[0] == state()[1]
        loader = torch.utils.data.DataLoader([1, 2, 3])
        print(json.dumps([
            alike,
            moved(lambda: iter(loader)),
            moved(lambda: list(torch.utils.data.RandomSampler([1, 2, 3]))),
            moved(lambda: torch.rand(2)),
            moved(lambda: torch.randperm(3)),
            moved(lambda: torch.rand(2, device="cuda")),
            moved(lambda: torch.nn.functional.dropout(torch.ones(4))),
            moved(lambda: torch.empty(2, device="cuda").normal_()),
            moved(lambda: torch.cuda.manual_seed(5)),
            moved(lambda: torch.cuda.default_generators[torch.cuda.current_device()].manual_seed(6)),
        ]))
    """)
    host, device = [True, False], [False, True]
    assert found == [True, host, host, host, host, device, device, device, device, device]


@pytest.mark.torch
def test_a_seed_of_a_loader_is_one_draw_from_the_hosts_stream() -> None:
    same = told("""
        torch.manual_seed(3)
        list(torch.utils.data.DataLoader([1, 2, 3]))
        ours = torch.get_rng_state()
        plain = torch.Generator().manual_seed(3)
        torch.empty((), dtype=torch.int64).random_(generator=plain)
        print(json.dumps(bool((ours == plain.get_state()).all())))
    """)
    assert same is True


@pytest.mark.torch
def test_packages_of_gpu_kernels_are_not_there_and_a_fused_adam_is() -> None:
    found = told("""
        import typing
        from apex.optimizers import FusedAdam
        def absent(name):
            try:
                __import__(name)
            except ImportError:
                return True
            return False
        a, b = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
        b.load_state_dict(a.state_dict())
        ours = FusedAdam(a.parameters(), lr=0.1, weight_decay=0.01)
        theirs = torch.optim.AdamW(b.parameters(), lr=0.1, weight_decay=0.01)
        for _ in range(3):
            for model, optimizer in ((a, ours), (b, theirs)):
                optimizer.zero_grad()
                model(torch.ones(2, 3)).pow(2).sum().backward()
                optimizer.step()
        far = max((x - y).abs().max().item() for x, y in zip(a.parameters(), b.parameters()))
        print(json.dumps([
            absent("transformer_engine"), absent("flash_attn"), far < 1e-3,
            ours.state_dict()["param_groups"][0]["step"], sorted(next(iter(ours.state.values()))),
            typing.override(int) is int,
        ]))
    """)
    assert found == [True, True, True, 3, ["exp_avg", "exp_avg_sq"], True]


# -- launched --------------------------------------------------------------------------------------

_SCRIPT = """\
import json, multiprocessing, os, sys
import torch
import torch.distributed as dist
import beside

class Held:
    def __call__(self, queue):
        queue.put([torch.cuda.is_available(), str(torch.ones(1, device="cuda").device)])

if __name__ == "__main__":
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl", device_id=torch.device("cuda", 0))
    rank, size = dist.get_rank(), dist.get_world_size()
    group = dist.new_group(range(size), backend="nccl", pg_options=None)
    total = torch.full((2,), rank + 1.0, device="cuda")
    dist.all_reduce(total, group=group)
    ins = [torch.full((1,), 10.0 * rank + peer, device="cuda") for peer in range(size)]
    outs = [torch.empty(1, device="cuda") for _ in range(size)]
    dist.all_to_all(outs, ins, group=group)
    single = torch.empty(size, device="cuda")
    sizes = torch.ones(size, dtype=torch.long, device="cuda")
    dist.all_to_all_single(single, torch.cat(ins), sizes, input_split_sizes=sizes, group=group)
    parts = [torch.empty(1 + peer, device="cuda") for peer in range(size)]
    dist.all_gather(parts, torch.full((1 + rank,), float(rank), device="cuda"), group=group)
    part = torch.empty(1 + rank, device="cuda")
    summed = [torch.full((1 + peer,), 10.0 * rank + peer) for peer in range(size)]
    dist.reduce_scatter(part, summed, group=group)
    uneven = [torch.cat(parts).tolist(), part.tolist()]
    ring = torch.full((1 << 20,), float(rank), device="cuda")
    peer, came = 1 - rank, torch.empty(1 << 20, device="cuda")
    batch = [dist.P2POp(dist.isend, ring, peer, group)]
    sends = [dist.isend(ring, peer, group), *dist.batch_isend_irecv(batch)]
    ring.data = torch.empty(1)  # as a pipeline's deallocate_output_tensor
    litter = [torch.full((1 << 20,), 7.0) for _ in range(4)]
    kept = []
    for _ in sends:
        dist.irecv(came, peer, group).wait()
        kept.append(came.unique().tolist() == [float(peer)])
    for send in sends:
        send.wait()
    dist.barrier(group=group, device_ids=[0])
    queue = multiprocessing.get_context("spawn").Queue()
    child = multiprocessing.get_context("spawn").Process(target=Held(), args=(queue,))
    child.start()
    spawned = queue.get(timeout=120)
    child.join()
    told = [total.tolist(), [one.item() for one in outs], single.tolist(), spawned, dist.get_backend(),
            uneven, kept, sys.argv[1:], beside.imported_in == os.getppid(), os.environ["LOCAL_WORLD_SIZE"]]
    with open(f"{sys.argv[1]}/{rank}.json", "w") as file:
        json.dump(told, file)
    dist.destroy_process_group()
    if len(sys.argv) > 2:
        raise RuntimeError(f"rank {rank} was told to")
    sys.exit()
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def launched(folder: Path, *arguments: str, script: str = _SCRIPT) -> subprocess.CompletedProcess[str]:
    """Two ranks of a script, as the adapter starts them."""
    (folder / "train.py").write_text(script)
    (folder / "beside.py").write_text("import os\nimported_in = os.getpid()\n")
    words = ["--nproc_per_node", "2", "--nnodes", "1", "--node_rank", "0",
             "--master_addr", "localhost", "--master_port", str(free_port()),
             "--log-dir", str(folder / "logs"), "--tee", "0:3,1:3", "--redirects", "3",
             "train.py", *arguments]  # fmt: skip
    return subprocess.run(
        [sys.executable, str(on_cpu.LAUNCH), *words],
        env={**os.environ, **on_cpu.variables()},
        cwd=folder, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


@pytest.mark.torch
def test_two_ranks_forked_from_one_import_talk_over_gloo_and_what_they_spawn_has_the_stand_in_too(
    tmp_path: Path,
) -> None:
    done = launched(tmp_path, str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    for rank in range(2):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        exchanged = [rank, 10.0 + rank]
        assert found == [
            [3.0, 3.0], exchanged, exchanged, [True, "cpu"], "gloo",
            [[0.0, 1.0, 1.0], [12.0, 12.0] if rank else [10.0]], [True, True], [str(tmp_path)], True, "2"
        ]  # fmt: skip


@pytest.mark.torch
def test_a_rank_that_fails_is_told_as_torchrun_tells_it_and_has_an_error_file(tmp_path: Path) -> None:
    done = launched(tmp_path, str(tmp_path), "fail")
    assert done.returncode == 1
    assert "Root Cause (first observed failure)" in done.stderr
    assert "was told to" in done.stderr
    (error, *_) = (tmp_path / "logs").rglob("error.json")
    assert "was told to" in error.read_text()


@pytest.mark.torch
@pytest.mark.parametrize(
    "script", ["import no_such_package\n", "def f():\n    import no_such_package\nf()\n"]
)
def test_a_package_that_is_missing_is_named_with_what_installs_it(tmp_path: Path, script: str) -> None:
    done = launched(tmp_path, script=script)
    assert done.returncode == 1
    assert "no_such_package: the checkout imports it, and it is not installed" in done.stderr
    assert "pip install no_such_package" in done.stderr


def test_a_package_that_is_installed_under_another_name_is_named_by_that() -> None:
    assert launch.missing(ModuleNotFoundError(name="yaml.nodes")).endswith("pip install pyyaml")


# -- chosen ----------------------------------------------------------------------------------------

_CASE = """\
MODEL_ARGS: {--train-iters: 8, --save-interval: 4, --lr: .1, --bf16: true}
METRICS: [lm loss, iteration-time, mem-allocated-bytes]
LAUNCHER: ft_launcher
HARNESS:
  trainer: {cpu: native, default: megatron}
  profiles:
    cpu: {--lr: .2}
"""
_PROFILE = "    cpu-megatron: {--lr: .3, --bf16: false}\n"


def made(folder: Path, text: str) -> Case:
    path = folder / "cases" / "gpt" / "tiny" / "model_config.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return load_case(path)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mlm").mkdir()
    (tmp_path / "mlm" / "pretrain_gpt.py").touch()
    monkeypatch.setenv("MEGATRON_LM_PATH", str(tmp_path / "mlm"))
    return tmp_path / "mlm"


def test_its_profile_stands_in_the_place_of_cpus_where_the_trainer_is_megatron(tmp_path: Path) -> None:
    case = made(tmp_path, _CASE + _PROFILE)
    asked = case.trained_by("megatron", "cpu")
    assert case.arguments("cpu")["--lr"] == ".2"
    assert asked.arguments("cpu") == {"--train-iters": "8", "--save-interval": "4", "--lr": ".3"}
    assert asked.arguments("h100")["--lr"] == ".1"
    assert made(tmp_path, _CASE).trained_by("megatron", "cpu").arguments("cpu")["--lr"] == ".2"


def test_its_goldens_are_not_those_of_the_native_trainer(tmp_path: Path) -> None:
    case = made(tmp_path, _CASE)
    asked = case.trained_by("megatron", "cpu")
    assert (case.platform("cpu"), asked.platform("cpu")) == ("cpu", "cpu-megatron")
    assert asked.platform("h100") == "dgx_h100"


@pytest.mark.usefixtures("checkout")
def test_the_option_makes_megatron_the_trainer_says_so_and_judges_no_time_and_no_memory(
    tmp_path: Path,
) -> None:
    from harness.matrix import Cell

    case, cell = (
        made(tmp_path, _CASE + "    cpu-megatron: {--lr: .3}\n  world_size: 1\n"),
        Cell("cpu", "dev", "tiny"),
    )
    folders = {name: tmp_path / name for name in ("cases", "goldens", "results")}
    options = Options(trainer="megatron")
    plan = prepare(cell, case=case, options=options, **folders)
    assert (plan.trainer.name, plan.platform) == ("megatron", "cpu-megatron")
    assert plan.case.metrics == ("lm loss",)
    assert not plan.trainer.measures
    assert plan.trainer.remarks == (on_cpu.REMARK,)
    for command in (plan.reproduce, plan.record_command, command_line(cell, "tiny", options, [])):
        assert "--trainer megatron" in command
    on_gpus = MegatronTrainer(case, "h100")
    assert (on_gpus.remarks, on_gpus.measures) == ((), True)


def test_a_trainer_that_there_is_not_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(UsageError, match="--trainer megaton: expected native, megatron, command"):
        Options(trainer="megaton")


@pytest.mark.usefixtures("checkout")
def test_on_a_cpu_our_launcher_is_in_torchruns_place_and_hides_every_gpu(tmp_path: Path) -> None:
    from harness.trainers.base import Phase

    case = made(tmp_path, _CASE + "  world_size: 2\n").trained_by("megatron", "cpu")
    trainer = MegatronTrainer(case, "cpu")
    trainer.check()
    nowhere = Path("/results/continuous")
    told = trainer.launch(Phase("continuous", nowhere, nowhere, None, 0, 8, 8, 4))
    assert told.argv[:2] == (sys.executable, str(on_cpu.LAUNCH))
    assert told.argv[2:4] == ("--nproc_per_node", "2")
    assert "--max-restarts=3" not in told.argv
    assert told.env["CUDA_VISIBLE_DEVICES"] == ""


@pytest.mark.parametrize(
    ("sizes", "processes"),
    [
        ({}, 1),
        ({"--tensor-model-parallel-size": "2", "--pipeline-model-parallel-size": "4"}, 8),
        ({"--expert-model-parallel-size": "4"}, 4),
        (
            {"--tensor-model-parallel-size": "4", "--expert-model-parallel-size": "2",
             "--expert-tensor-parallel-size": "2", "--pipeline-model-parallel-size": "2"}, 8,
        ),
    ],
)  # fmt: skip
def test_without_a_word_on_it_there_are_as_few_processes_as_the_parallel_sizes_allow(
    tmp_path: Path, sizes: dict[str, str], processes: int
) -> None:
    assert least_world(_sized(tmp_path, sizes), "cpu") == processes


def _sized(folder: Path, sizes: Mapping[str, str]) -> Case:
    args = "".join(f"  {name}: {value}\n" for name, value in {"--train-iters": "8", **sizes}.items())
    (folder / "model_config.yaml").write_text(
        f"MODEL_ARGS:\n{args}TEST_TYPE: ckpt-resume\nHARNESS:\n  trainer: {{cpu: megatron}}\n"
    )
    return load_case(folder)


@pytest.mark.parametrize("kind", ["tensor-model", "pipeline-model", "context", "expert-tensor"])
@pytest.mark.parametrize("size", ["two", "0", "1.5", "${NOBODY_SETS_IT}"])
def test_a_size_that_is_no_number_is_refused_by_its_name(tmp_path: Path, kind: str, size: str) -> None:
    with pytest.raises(CaseError, match=f"--{kind}-parallel-size"):
        least_world(_sized(tmp_path, {f"--{kind}-parallel-size": size}), "cpu")


def test_a_size_may_stand_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TP", "4")
    case = _sized(tmp_path, {"--tensor-model-parallel-size": "${TP}"})
    assert least_world(case, "cpu") == 4
    monkeypatch.setenv("GPUS_PER_NODE", "8")
    assert MegatronTrainer(case, "cpu").case.parallel_size("cpu", "tensor-model", resumed=True) == 4


def test_both_heart_cases_have_a_profile_that_is_small_at_their_full_parallelism(
    checkout: Path,
) -> None:
    found = {}
    for path in sorted((ROOT / "test_cases").glob("*/*mcore_te*/model_config.yaml")):
        case = load_case(path).trained_by("megatron", "cpu")
        arguments = case.arguments("cpu")
        assert arguments["--mock-data"] is True or arguments["--mock-data"] == "true"
        assert (case.train_iters("cpu"), case.resume_at("cpu")) == (10, 5)
        found[case.family] = MegatronTrainer(case, "cpu").world_size
    assert found == {"gpt": 4, "moe": 8}
    assert checkout.is_dir()


def test_a_checkout_that_is_not_there_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MEGATRON_LM_PATH", raising=False)
    with pytest.raises(HarnessError, match="no checkout of Megatron-LM is named"):
        MegatronTrainer(made(tmp_path, _CASE).trained_by("megatron", "cpu"), "cpu").check()
