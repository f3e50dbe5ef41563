"""pytest plugin: ``--cell``, and one visible outcome for every check of a cell.

With ``--cell`` the cells are all that is run, wherever the plugin is installed: each is one test (its
verdict), whose node is the file of its case. Every check of it is reported beside it, as
``<case file>::<cell>::<check>``, in the terminal and in JUnit's XML. These
reports cannot be items, which pytest wants to know before anything has run; and subtests lose their
names in JUnit. They are made where reports are consumed, so they survive pytest-xdist.

Without ``--cell`` it does nothing at all, but that ``pytest <folder of cases>``, which ran no cell, ends with
exit status 3. A test that asks for ``harness_cell`` gets the cells in its own way.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.errors import EXIT_NOTHING

if TYPE_CHECKING:
    from harness.checks import Check
    from harness.launch.launcher import Launcher
    from harness.matrix import Cell
    from harness.verdict import Verdict

_CASES = "test_cases"
_CHECKS = "harness_checks"  # attribute of the report that carries them from worker to controller
_RAN = "harness_ran"  # attribute of a report of the driver: whether a cell was run
_VERDICT = pytest.StashKey["Verdict"]()
_OPTIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("--cell", {"action": "append", "default": [], "metavar": "HARDWARE/TRACK/CASE",
                "help": "run this cell; may be given more than once"}),
    ("--golden-update", {"action": "store_true", "default": False,
                         "help": "record the goldens of the cells; their tests then fail"}),
    ("--repeats", {"metavar": "N", "type": int, "default": 1,
                   "help": "with --golden-update: runs that the golden's statistics come from"}),
    ("--protocol", {"metavar": "NAME", "default": "auto",
                    "help": "auto (fast if the golden is exact), full, fast, crash, reshard, every, chain"}),
    ("--resume-at", {"metavar": "K", "type": int, "help": "the iteration to resume after"}),
    ("--stops", {"metavar": "K,…", "default": "", "help": "every, chain: where to stop, as in 4,8"}),
    ("--budget", {"metavar": "SECONDS", "type": float,
                  "help": "every, chain: begin nothing that would end later"}),
    ("--trials", {"metavar": "SECONDS", "type": float, "help": "resumes from altered checkpoints; 0: none"}),
    ("--trainer", {"metavar": "NAME", "default": "",
                   "help": "native, megatron or command, default: the case's"}),
    ("--crash-at", {"metavar": "MOMENT", "default": "between-steps",
                    "help": "protocol crash: between-steps, saving, before-tracker or random"}),
    ("--crash-rank", {"metavar": "RANK", "default": "all", "help": "protocol crash: all, any, a number"}),
    ("--crash-times", {"metavar": "N", "type": int, "default": 1, "help": "protocol crash: how often"}),
    ("--crash-seed", {"metavar": "SEED", "type": int, "default": 0, "help": "of what is drawn of that"}),
    ("--engine", {"metavar": "NAME", "default": "local", "help": "local, or slurm: the nodes of a cluster"}),
    ("--nodes", {"metavar": "N", "type": int, "help": "slurm: that each phase runs on"}),
    ("--no-rotation", {"action": "store_true", "default": False,
                       "help": "slurm: ranks are resumed on the nodes that they were saved on"}),
    ("--new-job-per-phase", {"action": "store_true", "default": False,
                             "help": "slurm: an allocation for each phase"}),
    ("--time-limit", {"metavar": "MINUTES", "type": int, "default": 60, "help": "slurm: of an allocation"}),
    ("--slurm-option", {"metavar": "WORD", "action": "append", "default": [], "help": "a word for salloc"}),
    ("--heartbeat-timeout", {"metavar": "SECONDS", "type": float,
                             "help": "a rank without an iteration for so long has hung"}),
    ("--keep-checkpoints", {"action": "store_true", "default": False,
                            "help": "also when everything has passed"}),
    ("--results", {"metavar": "FOLDER", "default": "results", "help": "folder of results"}),
    ("--goldens", {"metavar": "FOLDER", "help": "folder of goldens"}),
    ("--cases", {"metavar": "FOLDER", "help": "folder of cases, default: the one named, or test_cases"}),
)  # fmt: skip


def _dest(option: str) -> str:
    return "harness_" + option.strip("-").replace("-", "_")


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options; another plugin that has one of these names keeps it."""
    group = parser.getgroup("harness", "train, save, stop, resume, compare")
    for name, details in _OPTIONS:
        try:
            group.addoption(name, dest=_dest(name), **details)
        except ValueError:
            parser.addini(_dest(name), "taken on the command line by another plugin")


def _option(config: pytest.Config, name: str) -> Any:  # noqa: ANN401 - as pytest has them
    return config.getoption(_dest(name), default=None)


def pytest_configure(config: pytest.Config) -> None:
    """Refuse a cell that does not exist before anything is collected."""
    names = _option(config, "--cell")
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Held(asked=bool(names)), "harness-held")
    if not names:
        return
    from harness.errors import HarnessError
    from harness.matrix import Cell

    try:
        cells = [Cell.parse(name) for name in names]
    except HarnessError as error:
        raise pytest.UsageError(str(error)) from None
    plugin = CellPlugin(config, cells)
    config.pluginmanager.register(plugin, "harness-cells")
    if config.args_source != pytest.Config.ArgsSource.ARGS:  # nobody asked for all the tests that are here
        if not plugin.cases.is_dir():
            raise pytest.UsageError(f"{plugin.cases}: no such folder; --cases says where the cases are")
        config.args = [str(plugin.cases)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give the driver the cells that were asked for."""
    if "harness_cell" not in metafunc.fixturenames:
        return
    plugin = metafunc.config.pluginmanager.getplugin("harness-cells")
    if plugin is None:
        mark = pytest.mark.skip(reason="no cell was asked for: give --cell=HARDWARE/TRACK/CASE")
        metafunc.parametrize("harness_cell", [pytest.param(None, id="none", marks=mark)])
    else:
        metafunc.parametrize("harness_cell", plugin.cells, ids=lambda cell: cell.id)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Mark what is the driver's for :class:`Held`, which with pytest-xdist is in another process."""
    report = yield
    if _runs_cell(item):
        setattr(report, _RAN, report.when == "call" and not report.skipped)
    return report


class Held:
    """Ends a session that should have run a cell, and has run none, with exit status 3."""

    def __init__(self, *, asked: bool) -> None:
        self.asked = asked
        self.cells = self.skipped = self.others = 0
        self.nothing = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count."""
        ran = getattr(report, _RAN, None)
        if ran is None:
            self.others += report.when == "call" and not report.skipped
        else:
            self.cells += ran
            self.skipped += report.skipped

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Decide."""
        empty = session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED
        if self.cells or session.config.option.collectonly or not (empty or session.exitstatus == 0):
            return
        meant = empty and not session.config.option.keyword and _named(session.config) is not None
        self.nothing = self.asked or meant or bool(self.skipped and not self.others)
        if self.nothing:
            session.exitstatus = EXIT_NOTHING

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say so."""
        if self.nothing:
            asked = "" if self.asked else "; --cell=HARDWARE/TRACK/CASE asks for one"
            terminalreporter.write_line(f"no cell was run: exit status {EXIT_NOTHING}, nothing to do{asked}")


def _named(config: pytest.Config) -> Path | None:
    """The folder of cases among the words of the command line; None where none is named."""
    from harness.matrix import CASE_FILE, case_names

    if config.args_source != pytest.Config.ArgsSource.ARGS:
        return None
    for word in config.args:
        here = (config.invocation_params.dir / word.partition("::")[0]).absolute()
        if (here / CASE_FILE).is_file():
            here = here.parent.parent  # <family>/<case>
        elif not case_names(here):
            continue
        return next((parent for parent in here.parents if parent.name == _CASES), here)
    return None


def _runs_cell(item: pytest.Item) -> bool:
    return isinstance(item, CellItem) or "harness_cell" in getattr(item, "fixturenames", ())


class CellFile(pytest.File):
    """The file of a case, below which its cells are."""

    def collect(self) -> tuple[pytest.Item, ...]:
        """Nothing: which cells there are is said by the command line."""
        return ()


class CellItem(pytest.Item):
    """A cell: passed, or failed with all that its verdict says."""

    def __init__(self, *, plugin: CellPlugin, cell: Cell, **more: Any) -> None:
        super().__init__(**more)
        self.plugin, self.cell = plugin, cell

    def runtest(self) -> None:
        """Train, save, stop, resume, compare; say what was lost."""
        verdict = self.plugin.run(self.cell, self)
        if not verdict.passed:
            from harness.report.terminal import render
            from harness.text import for_log

            pytest.fail(for_log(render(verdict)), pytrace=False)

    def reportinfo(self) -> tuple[Path, None, str]:
        """The case's file, and the cell."""
        return self.path, None, self.cell.id


@pytest.fixture
def harness_run(request: pytest.FixtureRequest) -> Callable[[Cell], Verdict]:
    """Run a cell as the command line says; skips where its hardware is missing."""
    plugin: CellPlugin = request.config.pluginmanager.getplugin("harness-cells")
    return lambda cell: plugin.run(cell, request.node)


class CellPlugin:
    """What is there only when cells were asked for."""

    def __init__(self, config: pytest.Config, cells: list[Cell]) -> None:
        self.config = config
        self.cells = cells
        self.session: pytest.Session | None = None
        self.ran: list[str] = []
        self.launcher: Launcher | None = None
        named = _option(config, "--cases")
        self.cases = Path(named) if named else _named(config) or Path(_CASES)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(
        self, session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Run the cells, and nothing else; a driver of one's own that was collected runs them itself."""
        from harness.matrix import CASE_FILE, case_names

        drivers = [item for item in items if _runs_cell(item)]
        others = [item for item in items if not _runs_cell(item)]
        if others:
            config.hook.pytest_deselected(items=others)
        there = {name: folder / CASE_FILE for _, name, folder in case_names(self.cases)}
        files = {
            cell: CellFile.from_parent(session, path=there.get(cell.case, self.cases).absolute())
            for cell in (() if drivers else self.cells)
        }
        made: list[pytest.Item] = [
            CellItem.from_parent(file, name=cell.id, plugin=self, cell=cell) for cell, file in files.items()
        ]
        items[:] = drivers or made
        for item in made:  # so that the terminal counts them
            report = pytest.CollectReport(item.nodeid.partition("::")[0], "passed", None, [item])
            config.hook.pytest_collectreport(report=report)

    def run(self, cell: Cell, item: pytest.Item) -> Verdict:
        """Run ``cell``; the verdict's checks go with the item's report."""
        from harness.errors import HarnessError
        from harness.launch.launcher import Launcher
        from harness.protocol.asked import options_of
        from harness.protocol.refusal import status_of
        from harness.protocol.run import run_cell
        from harness.report.html import write_report_of
        from harness.text import for_log

        driven = isinstance(item, CellItem) or _option(self.config, "--cases")
        cases = self.cases if driven else item.path.parent
        goldens = _option(self.config, "--goldens")
        self.launcher = self.launcher or Launcher()
        try:
            with self._observer() as observer:
                verdict = run_cell(
                    cell,
                    cases=cases,
                    goldens=Path(goldens) if goldens else cases.parent / "goldens",
                    results=Path(_option(self.config, "--results")),
                    options=options_of(lambda name: _option(self.config, name)),
                    observer=observer,
                    launcher=self.launcher,
                    report=write_report_of,
                )
                if verdict.passed and observer is not None:
                    observer.verdict(verdict)
        except (HarnessError, OSError) as error:
            skip = status_of(error) == "skipped"
            outcome = pytest.skip.Exception if skip else pytest.fail.Exception
            raise outcome(for_log(str(error)), pytrace=False) from None
        item.stash[_VERDICT] = verdict
        return verdict

    @contextmanager
    def _observer(self) -> Iterator[Any]:
        """Bars on the real terminal; silence in a worker of pytest-xdist, which has none."""
        reporter = self.config.pluginmanager.getplugin("terminalreporter")
        if hasattr(self.config, "workerinput") or reporter is None:
            yield None
            return
        from harness.report.terminal import Terminal
        from harness.text import guarded

        capture = self.config.pluginmanager.getplugin("capturemanager")
        shown = capture.global_and_fixture_disabled() if capture else nullcontext()
        with shown:
            reporter.ensure_newline()
            with Terminal.on(guarded(reporter._tw._file)) as terminal:  # noqa: SLF001 - no public way
                yield terminal

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Remember whom to tell that there is more to report than was collected."""
        self.session = session

    def pytest_sessionfinish(self) -> None:
        """End the warm parent that the cells have shared."""
        if self.launcher is not None:
            self.launcher.close()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
        """Put the checks into the report, as plain data that a worker can send."""
        report = yield
        verdict = item.stash.get(_VERDICT, None)
        if call.when == "call" and verdict is not None:
            setattr(report, _CHECKS, [_plain(verdict, check) for check in verdict.checks])
        return report

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Report every check of a cell after the cell itself."""
        checks = getattr(report, _CHECKS, None)
        if not checks or hasattr(self.config, "workerinput"):
            return
        if self.session is not None:
            self.session.testscollected += len(checks)
        self.ran.append(checks[0]["cell"])
        driver = report.nodeid.partition("::")[0]
        for check in checks:
            for made in _reports(driver, check):
                self.config.hook.pytest_runtest_logreport(report=made)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The cells of a sweep, and of each red one what broke, since when, and what was lost."""
        if len(self.ran) < 2:
            return
        from rich.console import Console

        from harness.matrix import Cell
        from harness.report.summary import summary_of
        from harness.text import guarded

        terminalreporter.section("cells")
        stream = guarded(terminalreporter._tw._file)  # noqa: SLF001 - no public way
        console = Console(file=stream, highlight=False, markup=False)
        summary_of(Path(_option(self.config, "--results")), map(Cell.parse, self.ran), console)


def _plain(verdict: Verdict, check: Check) -> dict[str, Any]:
    worst = check.worst
    return {
        "cell": verdict.cell,
        "name": check.name,
        "passed": check.passed,
        "message": check.message,
        "properties": {
            "metric": check.metric,
            "against": check.against,
            "kind": check.kind,
            "first_bad_step": check.first_bad_step,
            "expected": worst.expected if worst else None,
            "actual": worst.actual if worst else None,
        },
    }


def _reports(driver: str, check: dict[str, Any]) -> Iterator[pytest.TestReport]:
    from harness.text import for_log, one_line

    known = [(key, str(value)) for key, value in check["properties"].items() if value is not None]
    name = f"{check['cell']}::{one_line(check['name'])}"
    lines = [check["message"], *(f"  {key}: {value}" for key, value in known)]
    for when in ("call", "teardown"):  # JUnit's writer closes a test case at its teardown
        failed = when == "call" and not check["passed"]
        yield pytest.TestReport(
            nodeid=f"{driver}::{name}",
            location=(driver, None, name),
            keywords={},
            outcome="failed" if failed else "passed",
            longrepr=for_log("\n".join(lines)) if failed else None,
            when=when,
            user_properties=known,
        )
