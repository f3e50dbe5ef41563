"""What follows from all that was found: the golden that is recorded, the diagnosis, the verdict."""

from __future__ import annotations

import contextlib
import platform
import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from harness.errors import GoldenError, HarnessError, NotAllocated, NotRun
from harness.protocol import judge
from harness.protocol.findings import AgainstGolden, Findings, Found, NotResumed, Probed, Recorded, SavedState
from harness.protocol.refusal import sentence
from harness.protocol.relative import Relative
from harness.protocol.telling import message_of
from harness.text import utc_now

if TYPE_CHECKING:
    from harness.checkpoints.coverage import Coverage
    from harness.checks import Check
    from harness.diagnosis import Diagnosis
    from harness.diagnosis.deciding import Experiment
    from harness.diagnosis.trials import Trials
    from harness.metrics import Series
    from harness.protocol.steps import Steps
    from harness.verdict import Run, Verdict


def what_passing_takes(steps: Steps, findings: Findings) -> Found:
    """What must have been looked at before a cell can pass; a check for each that was not."""
    if not findings.checks or any(check.against != "golden" for check in findings.failures):
        return Found()
    plan, checks = steps.plan, []
    if not any(_is_training(check) for check in findings.checks):
        recording = plan.options.golden_update and not plan.resumes
        checks += [] if recording else [judge.no_curve(findings.checks)]
    if plan.resumes:
        covered = _coverage(steps, findings)
        if covered is None or not covered.entries.compared:
            checks.append(judge.no_state())
        checks += _trains_from_it(steps, findings)
    return Found(checks=tuple(checks))


def _trains_from_it(steps: Steps, findings: Findings) -> list[Check]:
    """A run that trains anew and logs from k+1 on is right in all it shows: so it gets another checkpoint."""
    source, resumed = findings.source, findings.phase("resumed")
    trainer, plan = steps.plan.trainer, steps.plan
    if trainer.can_probe or source is None or resumed is None or not resumed.phase.start:
        return []
    if not plan.deterministic:
        steps.phases.say("whether it trains from the checkpoint was not tried: it is not deterministic")
        return []
    experiments = steps.experiments(source, resumed)
    try:
        trial = experiments.trained_from
    except (NotRun, NotAllocated):
        raise
    except HarnessError as error:
        steps.phases.say(f"whether it trains from the checkpoint was not tried: {error.message}")
        return []
    finally:
        experiments.tidy()
    if trial is None or trial.taken_up is None:
        why = "it holds no floats of a model that training changes" if trial is None else trial.seen
        steps.phases.say(f"whether it trains from the checkpoint: {why}")
        return []
    return [judge.trains_from(trial, steps.plan.k)]


def _is_training(check: Check) -> bool:
    """Whether values of a curve of training were compared, one with another."""
    from harness.checks.bounds import is_bounded
    from harness.diagnosis.curves import kind_of

    compared = check.metric is not None and check.kind in ("exact", "tolerance", "envelope")
    other = ("validation", "rate", "scale", "data")
    return compared and not is_bounded(check.metric or "") and kind_of(check.metric or "") not in other


def record_golden(steps: Steps, findings: Findings) -> Found:
    """Approve the uninterrupted run, if that was asked for and resuming it is sound."""
    plan, run = steps.plan, findings.phase("continuous")
    if not plan.options.golden_update or run is None:
        return Found()
    state = steps.states.digests(run)  # one that cannot be read is a failed check
    unsound = [check for check in (*findings.checks, *state.checks) if not check.passed]
    if unsound:
        return Found(checks=(*state.checks, judge.golden_refused(list(dict.fromkeys(unsound)))))
    from harness import goldens

    if unfit := goldens.unfit(run.series, plan.case.metrics):
        return Found(checks=(judge.not_recorded(judge.unfit(unfit, plan)),))
    repeats = findings.repeats()
    try:
        statistics = _statistics(run, repeats, plan.case.metrics)
    except GoldenError as error:
        return Found(checks=(judge.not_recorded(error.message),))
    path = plan.goldens / plan.case.name / goldens.file_name(plan.cell.track, plan.platform)
    provenance = goldens.provenance_of(
        steps.fingerprint(run),
        state.digests,
        repeats=1 + len(repeats),
        statistics=statistics,
        subject=steps.subject(),
        circumstances=[rule.as_dict() for rule in steps.states.observed],
        values=state.values,
        resumed=_moved(steps, findings),
    )
    try:
        change = goldens.write(path, run.series, provenance, metrics=plan.case.metrics)
    except OSError as error:
        said = f"{path} cannot be written ({error.strerror or error}); nothing was changed"
        return Found(checks=(judge.not_recorded(said),))
    return Found(checks=(judge.golden_recorded(change),))


def _moved(steps: Steps, findings: Findings) -> dict[str, str]:
    """What of the state's digests is another one in the resumed run, though nothing was lost.

    Raises:
        CheckpointError: its state cannot be read any more.
    """
    state, resumed = findings.last(SavedState), findings.phase("resumed")
    continuous = findings.phase("continuous")
    if state is None or state.probed is not None or resumed is None or continuous is None:
        return {}
    return steps.states.moved(resumed, continuous, state.difference)


def _statistics(
    run: Recorded, repeats: list[Mapping[str, Series]], metrics: Collection[str]
) -> Mapping[str, Any] | None:
    """Of the metrics that are compared; raises GoldenError where there is no saying how they spread."""
    if not repeats:
        return None
    from harness.checks import statistics_of

    runs = [run.series, *repeats]
    return statistics_of(
        [{name: one for name, one in series.items() if not metrics or name in metrics} for series in runs]
    )


def diagnose_run(steps: Steps, findings: Findings) -> Diagnosis | None:
    """Name the component, if something was lost; a probe separates load from training."""
    plan, failed = steps.plan, findings.failures
    if plan.options.golden_update:  # which fails by itself, so that it cannot pass for a test
        failed = tuple(check for check in failed if check.against != "golden")
    if not failed:
        return None
    from harness.diagnosis import asks_for_replicas, diagnose, settled

    resume_failed = any(check.against != "golden" for check in failed)
    probed, not_resumed = findings.probed, findings.last(NotResumed)
    if resume_failed and not_resumed is None and probed is None and findings.source is not None:
        probed = steps.probe(findings.source)
    continuous, resumed = findings.phase("continuous"), findings.phase("resumed")
    state = findings.last(SavedState)
    interrupted = findings.phase("interrupted")
    again = None
    if interrupted is not None and any(c.metric and c.name.startswith("interrupted:") for c in failed):
        again = steps.interrupt_again(interrupted)
    with steps.phases.timed("diagnosis"):
        found = diagnose(
            findings.checks,
            continuous=continuous.series if continuous else {},
            resumed=resumed.series if resumed else None,
            k=resumed.phase.start if resumed else plan.k,
            n=resumed.phase.stop if resumed else plan.n,
            state=state.difference if state else None,
            probe=probed.difference if probed and resume_failed else None,
            deterministic=plan.deterministic,
            golden_only=not resume_failed,
            arguments=plan.case.arguments(plan.cell.hardware),
            stops_otherwise=again,
            not_loaded=not_resumed.component if not_resumed else "checkpoint",
            experiment=_experiment(steps, findings, probed) if resume_failed else None,
        )
    if found is None or findings.source is None or not asks_for_replicas(found):
        return found
    alike = steps.replicas_alike(findings.source)
    return found if alike is None else settled(found, alike=alike)


def _experiment(steps: Steps, findings: Findings, probed: Probed | None) -> Experiment | None:
    """Tries what is taken up, where the trainer cannot be asked to load and save."""
    source, resumed = findings.source, findings.phase("resumed")
    if source is None or resumed is None or (probed is not None and probed.difference is not None):
        return None
    allowed = steps.plan.options.trials
    if allowed == 0:
        steps.phases.say("experiments: none, as --trials 0 says")
        return None
    experiments = steps.experiments(source, resumed)
    if allowed is not None:
        experiments.seconds = allowed

    def tried(due: Collection[str]) -> Trials | None:
        try:
            return experiments.all(due)
        except (HarnessError, OSError) as error:  # the diagnosis then goes without them
            steps.phases.say(f"experiments: {sentence(error)}")
            return None
        finally:
            experiments.tidy()

    return tried


def verdict_of(
    protocol: str,
    steps: Steps,
    findings: Findings,
    diagnosis: Diagnosis | None,
    failure: HarnessError | None,
    run: Run,
) -> Verdict:
    """All of it.

    Args:
        protocol: the one that was run, not the one that was asked for.
        failure: what ended the run before it could be judged; None when it could.
        run: the invocation, as it began.
    """
    from harness.diagnosis import with_recipes
    from harness.verdict import Verdict

    relative = Relative.of(steps.plan, steps.phases.folder.path)
    checks = tuple(map(relative.check, findings.checks))
    if diagnosis is not None and _of_a_script(steps, findings, failure):
        diagnosis = with_recipes(diagnosis)
    provenance = _provenance(protocol, steps, findings, failure)
    if notes := (*steps.plan.trainer.remarks, *steps.phases.notes):
        provenance["notes"] = [relative.text(said) for said in notes]
    held = bool(checks) and all(check.passed for check in checks)
    return Verdict(
        cell=steps.plan.cell.id,
        status="error" if failure else "passed" if held else "failed",
        checks=checks,
        diagnosis=relative.diagnosis(diagnosis),
        timing={name: round(seconds, 3) for name, seconds in steps.phases.timing().items()},
        provenance=provenance,
        reproduce=steps.plan.reproduce,
        coverage=_coverage(steps, findings),
        message=relative.text(message_of(checks, diagnosis, failure)),
        run=replace(run, finished=utc_now()),
    )


def _of_a_script(steps: Steps, findings: Findings, failure: HarnessError | None) -> bool:
    """Whether it is the reader's own script that does not resume as it should."""
    resume = failure is not None or any(check.against != "golden" for check in findings.failures)
    return resume and steps.plan.trainer.name == "command"


def _coverage(steps: Steps, findings: Findings) -> Coverage | None:
    """Of the states that were compared: with each other, or by their digests with the golden's."""
    state, resumed = findings.last(SavedState), findings.phase("resumed")
    if state is not None and state.difference is not None:
        return state.difference.coverage
    return steps.states.coverage(resumed) if resumed is not None else None


def _provenance(
    protocol: str, steps: Steps, findings: Findings, failure: HarnessError | None
) -> dict[str, Any]:
    """What ran, for those who read the verdict without having been there."""
    from harness import __version__
    from harness.machine.provenance import commit, commit_of_harness

    plan = steps.plan
    found: dict[str, Any] = {"protocol": protocol, **_golden(steps, findings)}
    reference = findings.phase("continuous") or findings.phase("resumed")
    if reference is not None:
        with contextlib.suppress(HarnessError):
            found["fingerprint"] = steps.fingerprint(reference)
            found["subject"] = steps.subject()
            known = steps.states.digests_so_far(reference)
            found["state"] = known.digests
            if known.values:
                found["values"] = known.values
            if known.digests and (moved := _moved(steps, findings)):
                found["resumed"] = moved
            if steps.states.observed:
                found["circumstances"] = [rule.as_dict() for rule in steps.states.observed]
    found |= {
        "harness": __version__,
        **({"harness_commit": own} if (own := commit_of_harness()) else {}),
        "iterations": plan.n,
        "resumed_after": plan.k if plan.resumes else None,
        "world_size": plan.world_size,
        "case": str(plan.case.directory),
        "results": str(steps.phases.folder.path),
        "host": platform.node(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": commit(plan.trainer.code()),
        **({"nodes": dict(where)} if (where := steps.phases.where) else {}),
    }
    if failure is not None:
        found["error"] = str(failure)
    return found


def _golden(steps: Steps, findings: Findings) -> dict[str, Any]:
    """Which golden the run was compared with, and how."""
    golden, against = steps.plan.golden, findings.last(AgainstGolden)
    if against is None:
        return {}
    if golden is None:
        return {"golden": "none"}
    if against.comparison is None:
        return {}
    rounding = against.comparison.rounding
    return {
        "golden": against.comparison.why,
        "compared": against.comparison.lane,
        **({"rounding": rounding} if rounding else {}),
        "golden_provenance": dict(golden.provenance),
    }
