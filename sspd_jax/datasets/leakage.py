"""Who may be tested on: people that the network did not learn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sspd_jax.datasets.dataset import PreparedDataset, open_prepared
from sspd_jax.errors import ConfigError, UserError


def origin(dataset: PreparedDataset, person: str) -> tuple[Any, ...]:
    """Say who a person is beyond their name: 'subject1' is somebody else in another dataset.

    Simulated people are the same ones wherever the simulator's seed is the same, however they were filmed.
    """
    meta = next(s.meta for s in dataset.segments if s.person_id == person)
    simulation = meta.get("simulation")
    return (meta.get("dataset", ""), simulation.get("seed") if simulation else None, person)


def people_to_test(
    dataset: PreparedDataset, config: Mapping[str, Any] | None, people: Sequence[str]
) -> tuple[str, ...]:
    """Choose whom to test on, and refuse those whom a network learned from.

    Args:
      dataset: Dataset to test on.
      config: Config of the network's training, as in its checkpoint; None where nothing was trained.
      people: Their names; () for everybody with a contact pulse wave.

    Returns:
      Their names.

    Raises:
      ConfigError: Somebody is not in the dataset, or the network was trained on them.
    """
    known = list(dataset.people)
    if unknown := sorted(set(people) - set(known)):
        raise ConfigError(
            f"{dataset.data_dir}: has nobody called {', '.join(unknown)}; it has {', '.join(known[:50])}"
        )
    chosen = tuple(people) or tuple(dict.fromkeys(s.person_id for s in dataset.segments if s.has_ppg))
    if seen := trained_on(dataset, config, chosen):
        rest = [person for person in known if person not in trained_on(dataset, config, known)]
        remedy = f"name others: --people={','.join(rest[:50])}" if rest else "it was trained on all of them"
        raise ConfigError(
            f"{dataset.data_dir}: the network was trained on {', '.join(seen)}, so testing on them "
            f"says nothing; {remedy}"
        )
    return chosen


def trained_on(
    dataset: PreparedDataset, config: Mapping[str, Any] | None, people: Sequence[str]
) -> list[str]:
    """Return whom of some people a network was trained on.

    Where the training's dataset cannot be opened any more, the same name is taken for the same person.
    """
    config = config or {}
    seen: set[str] = set()
    # A network that went on from another one's also learned from its people.
    for data in (config.get("data") or {}, *config.get("learned_before", ())):
        same = set(data.get("train_people", ())) & set(people)
        try:
            if same:
                theirs = open_prepared(data["data_dir"])
                same = {who for who in same if origin(theirs, who) == origin(dataset, who)}
        except (UserError, StopIteration):
            pass
        seen |= same
    return sorted(seen, key=list(people).index)
