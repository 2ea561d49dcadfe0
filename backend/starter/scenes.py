"""Scenes of the starter: what may stand where, drawn at random and told exactly."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

SHAPES = ("circle", "square", "triangle", "star", "diamond", "cross", "ring", "moon")
COLORS = ("red", "green", "blue", "yellow", "purple", "orange", "white", "black")
SIZES = ("small", "large")
GROUNDS = ("sand", "snow", "grass", "water", "stone")
CELLS = ("top left", "top right", "bottom left", "bottom right")
"""The four places of a picture; a place holds one item at most."""
FONTS = ("sans", "serif", "mono")
WORDS = tuple(
    """
    ALARM ANGEL APPLE ATLAS BACON BAKER BANK BEACH BELL BERRY BIKE BIRD BOAT BOOK BREAD BRICK
    CABIN CAFE CANDY CHEF CHESS CITY CLOUD COAST COFFEE CORN CREAM CROWN DAIRY DANCE DEPOT
    DINER DOCK DONUT DOOR DREAM EAGLE EXIT FARM FERRY FISH FLAG FOREST FUEL GARAGE GARDEN
    GATE GOLD GRILL GYM HARBOR HELP HOTEL ICE INFO JAZZ JUICE KITE LAKE LEMON LION MAPLE
    MARKET METRO MILK MINT MOTEL MUSIC NORTH OASIS OCEAN OPEN OPERA PARK PEARL PIANO PILOT
    PIZZA POLICE POST RADIO RIVER ROBOT SALE SALON SCHOOL SHOP SILVER SOLAR SOUP SOUTH
    STATION STOP STUDIO SUGAR TAXI TEA TIGER TOWER TRAIN VIDEO VILLA WATCH WEST WINE YOGA ZOO
    """.split()  # noqa: SIM905 (a column of quotes reads worse)
)
"""Words that the model zoo learned to read."""
NUMBERS = tuple(str(number) for number in range(10, 100))
"""Numbers that it learned to read."""
SIGN_TEXTS = (
    "APPLE", "BANK", "BRICK", "CAFE", "EXIT", "GOLD", "HOTEL", "LEMON", "MILK", "MUSIC", "OCEAN",
    "OPEN", "PARK", "PIZZA", "RADIO", "STOP", "TAXI", "TIGER", "TRAIN", "ZOO",
    "12", "25", "37", "48", "56", "64", "79", "93",
)  # fmt: skip
"""Those that the starter's signs show: few enough that a small seed names each of them often."""


@dataclass(frozen=True)
class Thing:
    """A colored shape."""

    shape: str
    color: str
    size: str
    cell: str
    shift: tuple[float, float]
    """From the middle of its place, -1 to 1 of the free room, right and down."""
    angle: float
    """Degrees, at most a slight tilt."""

    @property
    def name(self) -> str:
        """Such as `red circle`."""
        return f"{self.color} {self.shape}"


@dataclass(frozen=True)
class Sign:
    """A colored board with a word or a number printed on it."""

    text: str
    color: str
    font: str
    cell: str
    shift: tuple[float, float]

    @property
    def is_number(self) -> bool:
        """Whether a number is printed."""
        return self.text.isdigit()


@dataclass(frozen=True)
class Scene:
    """What a picture shows."""

    ground: str
    things: tuple[Thing, ...]
    signs: tuple[Sign, ...]
    grain: int = field(default=0)
    """Seed of the ground's texture."""

    @property
    def items(self) -> tuple[Thing | Sign, ...]:
        """Things and signs in reading order."""
        return tuple(sorted((*self.things, *self.signs), key=lambda item: CELLS.index(item.cell)))

    def record(self) -> dict[str, object]:
        """As JSON keeps it."""
        return {
            "ground": self.ground,
            "things": [
                {"shape": t.shape, "color": t.color, "size": t.size, "cell": t.cell}
                for t in self.things
            ],
            "signs": [{"text": s.text, "color": s.color, "cell": s.cell} for s in self.signs],
        }


def random_scene(
    random: Random, *, n_signs: int | None = None, texts: tuple[str, ...] = SIGN_TEXTS
) -> Scene:
    """A scene of two to four items; things differ in shape or color, signs in color and text.

    Args:
        random: Where chance comes from.
        n_signs: How many of them are signs; None draws 0 to 2.
        texts: What signs may show.
    """
    if n_signs is None:
        n_signs = random.choices((0, 1, 2), (3, 5, 2))[0]
    n_things = random.randint(max(0, 2 - n_signs), 4 - n_signs)
    cells = random.sample(CELLS, n_signs + n_things)
    kinds = random.sample([(s, c) for s in SHAPES for c in COLORS], n_things)
    things = tuple(
        Thing(shape, color, random.choice(SIZES), cell, _shift(random), random.uniform(-12, 12))
        for (shape, color), cell in zip(kinds, cells[:n_things], strict=True)
    )
    boards = random.sample(COLORS, n_signs)
    shown = random_texts(random, n_signs, known=texts)
    signs = tuple(
        Sign(text, color, random.choice(FONTS), cell, _shift(random))
        for text, color, cell in zip(shown, boards, cells[n_things:], strict=True)
    )
    return Scene(random.choice(GROUNDS), things, signs, random.randrange(1 << 30))


def random_texts(
    random: Random,
    count: int,
    without: tuple[str, ...] = (),
    known: tuple[str, ...] = SIGN_TEXTS,
) -> list[str]:
    """`count` different texts of `known`, none of them in `without`."""
    return random.sample([text for text in known if text not in without], count)


def _shift(random: Random) -> tuple[float, float]:
    return random.uniform(-1, 1), random.uniform(-1, 1)
