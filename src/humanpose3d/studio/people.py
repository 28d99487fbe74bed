"""Who stands in the studio: body proportions and clothes, drawn from a seed. Owns no pose and no picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Bone lengths and offsets as shares of the body height, of an average adult.
HIP_HALF_WIDTH, THIGH, SHIN, ANKLE_HEIGHT = 0.064, 0.245, 0.235, 0.045
PELVIS_TO_SPINE, SPINE_TO_THORAX = 0.135, 0.145
SHOULDER_HALF_WIDTH, SHOULDER_DROP, UPPER_ARM, FOREARM = 0.105, 0.018, 0.165, 0.145
NECK_OFFSET, HEAD_OFFSET = (0.0, 0.030, 0.100), (0.0, -0.014, 0.095)  # right, forward, up

PATTERNS = ("plain", "rings", "lines", "checks", "dots")
SKIN_TONES = ((241, 205, 178), (226, 180, 145), (198, 143, 106), (150, 102, 73), (104, 68, 50))
HAIR_COLOURS = ((38, 28, 22), (84, 56, 36), (136, 92, 48), (205, 168, 98), (150, 148, 146), (120, 44, 24))


@dataclass(frozen=True)
class Body:
    """Sizes of one person, metres."""

    height: float
    girth: float  # 1 for an average build: scales limb and torso radii
    hip_half_width: float
    thigh: float
    shin: float
    ankle_height: float
    pelvis_to_spine: float
    spine_to_thorax: float
    shoulder_half_width: float
    shoulder_drop: float
    upper_arm: float
    forearm: float
    head_scale: float

    @property
    def leg(self) -> float:
        return self.thigh + self.shin

    @property
    def arm(self) -> float:
        return self.upper_arm + self.forearm

    @property
    def standing_pelvis_height(self) -> float:
        return 0.988 * self.leg + self.ankle_height


@dataclass(frozen=True)
class Clothes:
    """Colours (RGB, 0 to 255) and patterns. Front and back of every person differ: face, collar, print, buttons."""

    skin: tuple[float, float, float]
    hair: tuple[float, float, float]
    shirt: tuple[float, float, float]
    shirt_second: tuple[float, float, float]
    print_colour: tuple[float, float, float]
    trousers: tuple[float, float, float]
    trousers_second: tuple[float, float, float]
    shoes: tuple[float, float, float]
    shirt_pattern: str
    trousers_pattern: str
    pattern_pitch_m: float
    long_sleeves: bool
    long_trousers: bool
    long_hair: bool
    has_buttons: bool


@dataclass(frozen=True)
class Person:
    body: Body
    clothes: Clothes


def random_person(rng: np.random.Generator) -> Person:
    """A person of any build and dress."""
    return Person(_random_body(rng), _random_clothes(rng))


def _random_body(rng: np.random.Generator) -> Body:
    height = float(rng.uniform(1.56, 1.92))

    def length(share: float) -> float:
        return float(share * height * rng.uniform(0.96, 1.04))

    return Body(
        height=height,
        girth=float(rng.uniform(0.88, 1.2)),
        hip_half_width=length(HIP_HALF_WIDTH),
        thigh=length(THIGH),
        shin=length(SHIN),
        ankle_height=ANKLE_HEIGHT * height,
        pelvis_to_spine=length(PELVIS_TO_SPINE),
        spine_to_thorax=length(SPINE_TO_THORAX),
        shoulder_half_width=length(SHOULDER_HALF_WIDTH),
        shoulder_drop=SHOULDER_DROP * height,
        upper_arm=length(UPPER_ARM),
        forearm=length(FOREARM),
        head_scale=float(rng.uniform(0.94, 1.06)),
    )


def _random_clothes(rng: np.random.Generator) -> Clothes:
    shirt, trousers = _colour(rng), _colour(rng, brightest=190.0)
    return Clothes(
        skin=_vary(SKIN_TONES[rng.integers(len(SKIN_TONES))], rng),
        hair=_vary(HAIR_COLOURS[rng.integers(len(HAIR_COLOURS))], rng),
        shirt=shirt,
        shirt_second=_contrast(shirt, rng),
        print_colour=_contrast(shirt, rng),
        trousers=trousers,
        trousers_second=_vary(trousers, rng, spread=45.0),
        shoes=_colour(rng),
        shirt_pattern=str(rng.choice(PATTERNS, p=(0.3, 0.2, 0.15, 0.2, 0.15))),
        trousers_pattern=str(rng.choice(PATTERNS, p=(0.6, 0.05, 0.15, 0.15, 0.05))),
        pattern_pitch_m=float(rng.uniform(0.05, 0.11)),
        long_sleeves=bool(rng.random() < 0.5),
        long_trousers=bool(rng.random() < 0.7),
        long_hair=bool(rng.random() < 0.4),
        has_buttons=bool(rng.random() < 0.5),
    )


def _colour(rng: np.random.Generator, brightest: float = 235.0) -> tuple[float, float, float]:
    """A colour with some saturation: greys are rarer in clothes than a uniform draw would make them."""
    colour = rng.uniform(25.0, brightest, size=3)
    colour[rng.integers(3)] *= rng.uniform(0.3, 1.0)
    return tuple(colour.tolist())


def _vary(
    colour: tuple[float, float, float], rng: np.random.Generator, spread: float = 10.0
) -> tuple[float, float, float]:
    return tuple(np.clip(np.array(colour) + rng.uniform(-spread, spread, 3), 8, 247).tolist())


def _contrast(colour: tuple[float, float, float], rng: np.random.Generator) -> tuple[float, float, float]:
    """A colour clearly lighter or darker than the given one."""
    base = np.array(_colour(rng))
    light = np.mean(colour) < 120
    return tuple(np.clip(base * 0.5 + (120 if light else 5), 5, 250).tolist())
