"""What drivers on one results folder tell each other: who is at which step, what has failed for good."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.running import attempts, failures
from orchestrator.running.jobs import Outcome
from orchestrator.steps import Step
from results.leases import Leases
from results.store import Store


@dataclass
class StoreLedger:
    """A `driving.Ledger` in the results folder."""

    store: Store
    leases: Leases
    _owners: int = 0

    def admit(self, step: Step) -> Outcome | str | None:
        """See `driving.Ledger`. Every attempt has an owner of its own, so that none commits another's work."""
        if not self.leases.take(step.kind, step.key):
            return None
        if self.store.is_finished(step.kind, step.key):
            self.release(step)
            return Outcome(key=step.key, status="cached")
        if (record := self.store.failure(step.kind, step.key)) is not None:
            self.release(step)
            return failure(step, record)
        self._owners += 1
        return f"{self.leases.driver.id}-{self._owners}"

    def release(self, step: Step) -> None:
        """See `driving.Ledger`."""
        self.leases.release(step.kind, step.key)

    def died(self, step: Step, outcome: Outcome) -> None:
        """See `driving.Ledger`."""
        attempts.note_death(self.store, step.kind, step.key, outcome.kind, outcome.error)

    def gave_up(self, step: Step, outcome: Outcome) -> None:
        """See `driving.Ledger`."""
        self.store.mark_failed(step.kind, step.key, {"kind": outcome.kind, "error": outcome.error})

    def news(self, steps: Sequence[Step]) -> list[Outcome]:
        """See `driving.Ledger`."""
        found: list[Outcome] = []
        for kind in {step.kind for step in steps}:
            done, failed = self.store.finished(kind), self.store.failed(kind)
            for step in steps:
                if step.kind == kind and step.key in done:
                    found.append(Outcome(key=step.key, status="cached"))
                elif step.kind == kind and step.key in failed:
                    found.append(failure(step, failed[step.key]))
        return found


def failure(step: Step, record: Mapping[str, Any]) -> Outcome:
    """The outcome that a step's record of having failed for good stands for."""
    return Outcome(
        key=step.key,
        status="failed",
        kind=record.get("kind", failures.ERROR),
        error=record.get("error", "not recorded"),
    )
