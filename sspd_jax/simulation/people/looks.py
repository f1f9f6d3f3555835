"""Who is filmed: an endless, frozen list of people, split once into those to fit, choose and test on."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from sspd_jax.simulation.people.heads import load_heads
from sspd_jax.simulation.people.skin_optics import BLOOD, MELANIN

LIST_SEED = 1702  # of the list: another one would be other people
SPLITS = {"fit": 3, "choose": 1, "test": 2}  # of six people that follow each other
ALL = "all"
HAIR = ("none", "shaved", "short", "full", "long")
GLASSES = ("none", "thin", "thick", "dark")
FEATURE_SPREAD = 0.65  # of a head's features, of what the model's components spread
ORIGINS = {"african": 0.85, "asian": 0.4, "caucasian": 0.25}  # of a head's shape: where its skin lies, mostly
# Melanin for natural hair colours of pheomelanin and eumelanin, linear red, green and blue.
HAIR_COLOURS = ((0.010, 0.008, 0.007), (0.025, 0.015, 0.010), (0.07, 0.035, 0.017), (0.22, 0.13, 0.06),
                (0.15, 0.045, 0.018), (0.30, 0.29, 0.28))  # fmt: skip
GREY = 5  # place in it
IRIS_COLOURS = ((0.05, 0.025, 0.012), (0.10, 0.06, 0.03), (0.10, 0.13, 0.07), (0.12, 0.17, 0.22))


@dataclasses.dataclass(frozen=True, eq=False)
class Looks:
    """What does not change of a person.

    Attributes:
      number: Place in the list, from 1.
      split: 'fit', 'choose' or 'test'.
      groups: Share of each group of `HeadModel.groups`, float64 [g].
      components: Of the head's features, standard deviations, float64 [k].
      age: 0 for the young, 1 for the old.
      melanin: Volume of melanosomes in the epidermis.
      blood: Volume of blood in the dermis.
      beats: Relative change of the blood with one unit of PPG, mean over the face.
      hair: Name in `HAIR`.
      hair_colour: Linear red, green and blue.
      beard: 0 for none, 1 for a full one.
      brows: How thick they are, 0 to 1.
      glasses: Name in `GLASSES`.
      frame_colour: Of them, linear.
      make_up: 0 for none, 1 for much: an even, opaque layer, coloured lips and lids.
      lips_colour: What make-up gives to the lips, linear.
      iris: Colour of the eyes, linear.
      clothes: Colours of what is worn, linear, float64 [2, 3].
      shine: How much the skin shines, relative.
      seed: For moles, freckles, strands and unevenness.
    """

    number: int
    split: str
    groups: np.ndarray
    components: np.ndarray
    age: float
    melanin: float
    blood: float
    beats: float
    hair: str
    hair_colour: np.ndarray
    beard: float
    brows: float
    glasses: str
    frame_colour: np.ndarray
    make_up: float
    lips_colour: np.ndarray
    iris: np.ndarray
    clothes: np.ndarray
    shine: float
    seed: int


def split_of(number: int) -> str:
    """Return whether a person is there to 'fit', to 'choose' or to 'test' on.

    Args:
      number: Place in the list, from 1.
    """
    block, place = divmod(number - 1, sum(SPLITS.values()))
    names = [name for name, count in SPLITS.items() for _ in range(count)]
    return names[np.random.default_rng([LIST_SEED, 0, block]).permutation(len(names))[place]]


def people_of(split: str, count: int) -> list[int]:
    """Return the numbers of the first people of a split, or of all.

    Example:
      >>> people_of("all", 3)
      [1, 2, 3]
      >>> set(people_of("fit", 30)) & set(people_of("test", 20))
      set()
    """
    numbers: list[int] = []
    number = 0
    while len(numbers) < count:
        number += 1
        if split in (ALL, split_of(number)):
            numbers.append(number)
    return numbers


def draw_looks(number: int) -> Looks:
    """Draw a person of the list.

    Melanin goes evenly through its range on a logarithmic scale as the numbers grow, in each split: few
    people cover the range as well as many.

    Args:
      number: Place in the list, from 1.

    Returns:
      The person.
    """
    rng = np.random.default_rng([LIST_SEED, 1, number])
    model = load_heads()
    split = split_of(number)
    turn = _low_discrepancy(number)
    low, high = np.log(MELANIN)
    melanin = math.exp(low + (high - low) * turn)
    male = rng.random() < 0.5
    age = float(np.clip(rng.beta(1.2, 1.8), 0, 1))
    # Shape and skin go together loosely, as in the world's people.
    nearness = np.exp(-(((turn - np.array(list(ORIGINS.values()))) / 0.3) ** 2)) + 0.05
    race = rng.dirichlet(3 * nearness / nearness.sum())
    groups = np.zeros(len(model.groups))
    for i, name in enumerate(model.groups):
        kind, sex, years = name.split("-")
        share = race[list(ORIGINS).index(kind)]
        if (sex == "male") == male:
            groups[i] = share * (age if years == "old" else 1 - age)
    dark_hair = rng.random() < 0.25 + turn
    colour = int(rng.integers(0, 2) if dark_hair else rng.integers(1, 5))
    if age > 0.75 and rng.random() < 0.7:
        colour = GREY
    if male:
        hair = rng.choice(HAIR, p=(0.1, 0.2, 0.45, 0.22, 0.03))
        beard = float(rng.choice([0.0, 0.35, 1.0], p=(0.5, 0.25, 0.25)) * rng.uniform(0.7, 1))
    else:
        hair, beard = rng.choice(HAIR, p=(0.0, 0.05, 0.1, 0.3, 0.55)), 0.0
    make_up = float(rng.uniform(0.3, 1) * (rng.random() < (0.05 if male else 0.5)))
    glasses = rng.choice(GLASSES, p=(0.67, 0.16, 0.14, 0.03))
    return Looks(
        number=number,
        split=split,
        groups=groups,
        components=FEATURE_SPREAD * rng.standard_normal(len(model.components)).clip(-2, 2),
        age=age,
        melanin=melanin,
        blood=float(np.exp(rng.uniform(*np.log(BLOOD)))),
        beats=float(rng.uniform(0.018, 0.036)),
        hair=str(hair),
        hair_colour=np.array(HAIR_COLOURS[colour]) * rng.uniform(0.7, 1.4),
        beard=beard,
        brows=float(rng.uniform(0.4, 1) if male else rng.uniform(0.2, 0.8)),
        glasses=str(glasses),
        frame_colour=rng.uniform(0.005, 0.2) * rng.uniform(0.4, 1, 3),
        make_up=make_up,
        lips_colour=np.array([0.35, 0.05, 0.07]) * rng.uniform(0.6, 1.3, 3),
        iris=np.array(IRIS_COLOURS[0 if turn > 0.5 else rng.integers(0, 4)]),
        clothes=rng.uniform(0.02, 0.7, (2, 1)) * rng.uniform(0.3, 1, (2, 3)),
        shine=float(rng.uniform(0.4, 1.6)),
        seed=int(rng.integers(2**31)),
    )


def _low_discrepancy(number: int) -> float:
    """Return van der Corput's sequence: people that follow each other lie far apart, in every third, too."""
    place, base, value = number, 1.0, 0.0
    while place:
        base /= 5  # of the splits' six no factor: each split sees the whole range
        place, digit = divmod(place, 5)
        value += digit * base
    return value
