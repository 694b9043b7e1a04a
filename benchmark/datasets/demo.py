"""The embedded demo: a small shop, simulated, in which methods can be told apart. Same bytes on every machine.

What there is to learn, from easy to hard: popular items (popularity); items that follow each other (markov); a
user's lasting brand (needs more than the last item); how many purchases a user makes in a category before moving to
the next one in its ring (needs several); and items released late, of which some are only ever a last purchase, so
that text alone can find them. Users have at least 5 purchases and no repeats; items are not 5-cored, because a
cold item has few purchases by nature.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from benchmark.datasets.atomic import Tables

SEED = 20
N_USERS, N_ITEMS = 3000, 1200
FIRST_DAY, N_DAYS = 15706, 1095  # 2013-01-01, three years
SECONDS_A_DAY = 86400
LATE_SHARE, LATE_DAYS = 6, 60  # every 6th item is released in the last 60 days
NEW_DAYS, NEW_FACTOR = 60, 15  # for 60 days a new item sells fifteen times as well
LONG_AGO = 10_000  # days before the first, when the other items were released
CATEGORY_FACTOR = 50  # how much more a user buys in the category of the moment
BRAND_FACTOR = 12  # and of the favourite brand
FOLLOWER_BRAND = 30  # the same for the brand of an item's followers
HABIT = 60  # per cent of purchases that follow the last one, where they can

SHOP = {
    "Kitchen": {
        "Coffee & Tea": ("Kettle", "Teapot", "Coffee Grinder", "Espresso Cup"),
        "Cookware": ("Saucepan", "Frying Pan", "Stock Pot", "Wok"),
        "Baking": ("Cake Tin", "Rolling Pin", "Mixing Bowl", "Piping Bag"),
    },
    "Garden": {
        "Planting": ("Flower Pot", "Seed Tray", "Potting Soil", "Plant Label"),
        "Watering": ("Garden Hose", "Watering Can", "Sprinkler", "Rain Barrel"),
        "Hand Tools": ("Trowel", "Pruning Shears", "Hand Rake", "Weeder"),
    },
    "Outdoor": {
        "Camping": ("Tent", "Sleeping Bag", "Camp Stove", "Lantern"),
        "Cycling": ("Bike Light", "Tyre Pump", "Cycling Helmet", "Saddle Bag"),
        "Running": ("Running Shoe", "Head Torch", "Running Vest", "Water Flask"),
    },
    "Craft": {
        "Painting": ("Paint Brush", "Watercolour Set", "Easel", "Sketch Pad"),
        "Knitting": ("Wool Yarn", "Knitting Needle", "Crochet Hook", "Stitch Marker"),
        "Woodwork": ("Chisel", "Hand Plane", "Wood Glue", "Clamp"),
    },
}
QUALITIES = (  # of the twelve categories, in the order of SHOP
    ("Copper", "Porcelain", "Whistling"),
    ("Cast Iron", "Non-Stick", "Induction"),
    ("Silicone", "Marble", "Floral"),
    ("Terracotta", "Compostable", "Hanging"),
    ("Kink-Free", "Drip", "Long-Reach"),
    ("Carbon Steel", "Ash-Handled", "Bypass"),
    ("Two-Person", "Ultralight", "Waterproof"),
    ("Reflective", "Tubeless", "Aero"),
    ("Cushioned", "Breathable", "Trail"),
    ("Sable", "Cold-Pressed", "Fine-Art"),
    ("Merino", "Bamboo", "Chunky"),
    ("Bevelled", "Bench", "Quick-Grip"),
)
BRANDS = (
    "Alderton", "Brightwell", "Corvane", "Dunmere", "Eskline", "Farrowby", "Glenhart", "Hollis & Co",
    "Ivarsen", "Juniper Lane", "Kestrel", "Lindqvist",
)  # fmt: skip
COLOURS = ("Black", "White", "Green", "Blue", "Red", "Grey", "Yellow")
LENGTHS = (5, 5, 5, 5, 5, 5, 6, 6, 6, 7, 7, 8, 8, 9, 10, 11, 13, 15, 19, 25)
GAPS = (0, 0, 0, 0, 2, 5, 9, 14, 21, 30, 45, 70)  # days between purchases; 0 makes ties
SUCCESSORS = (0, 0, 0, 0, 1, 1, 1, 2, 2, 3)  # which of an item's four followers is bought next
STAYS = (2, 3, 4)  # purchases in a category before a user moves on


class Dice:
    """Draws made of PCG64's raw bits and integers only, so neither numpy's version nor the platform matters."""

    def __init__(self, seed: int) -> None:
        self._bits = np.random.PCG64(seed)

    def below(self, limits: np.ndarray | int, size: int | None = None) -> np.ndarray:
        """Independent integers in [0, limit) for limits up to 2**32, one per limit or ``size`` of one limit."""
        bounds = np.asarray(limits, np.uint64) if size is None else np.full(size, limits, np.uint64)
        raw = self._bits.random_raw(bounds.size).reshape(bounds.shape) >> np.uint64(32)
        return (raw * bounds >> np.uint64(32)).astype(np.int64)

    def pick(self, table: tuple[int, ...], size: int) -> np.ndarray:
        return np.array(table)[self.below(len(table), size)]

    def permutation(self, n: int) -> np.ndarray:
        return np.argsort(self._bits.random_raw(n), kind="stable")

    def weighted(self, weights: np.ndarray) -> np.ndarray:
        """(R, N) non-negative integers, no row all 0 -> (R,) one column per row, drawn by weight."""
        bounds = weights.cumsum(1)  # (R, N)
        return (self.below(bounds[:, -1])[:, None] >= bounds).sum(1)


@dataclass(frozen=True)
class Shop:
    """The catalogue, by item 0..N-1."""

    category: np.ndarray  # (N,) 0..11, place in the ring
    kind: np.ndarray  # (N,) 0..3, third level
    brand: np.ndarray  # (N,)
    weight: np.ndarray  # (N,) integer popularity
    release: np.ndarray  # (N,) day
    followers: np.ndarray  # (N, 4) items


def generate(seed: int = SEED) -> Tables:
    """The demo as tables: 3,000 users, about 1,200 items and 27,000 purchases."""
    dice = Dice(seed)
    shop = _build_shop(dice)
    lengths = dice.pick(LENGTHS, N_USERS)
    days = _calendar(dice, lengths)
    bought = _simulate(dice, shop, days, lengths)
    rows, cols = np.nonzero(_live(lengths))
    keys = np.char.add("D", np.char.zfill(dice.permutation(N_ITEMS).astype(str), 4))  # say nothing of the item
    interactions = pd.DataFrame(
        {
            "user_id": np.char.add("u", np.char.zfill(rows.astype(str), 4)),
            "item_id": keys[bought[rows, cols]],
            "timestamp": (days[rows, cols] * SECONDS_A_DAY).astype(str),
        },
        dtype=object,
    )
    types = {"user_id": "token", "item_id": "token", "timestamp": "float"}
    items = _describe(dice, shop, keys)
    types |= {"title": "token_seq", "brand": "token", "categories": "token_seq"}
    meta = {"name": "demo", "source": "generated", "time": "unix seconds, day resolution", "seed": seed}
    return Tables("demo", interactions, items, types, meta)


def _build_shop(dice: Dice) -> Shop:
    ranks = dice.permutation(N_ITEMS)
    category = np.arange(N_ITEMS) % len(QUALITIES)
    brand = dice.below(len(BRANDS), N_ITEMS)
    late = np.arange(N_ITEMS) // len(QUALITIES) % LATE_SHARE == 0
    release = FIRST_DAY + np.where(late, N_DAYS - 1 - dice.below(LATE_DAYS, N_ITEMS), -LONG_AGO)
    weight = 100_000 // (ranks + 15)
    followers = _followers(dice, category, brand, weight)
    return Shop(category, dice.below(4, N_ITEMS), brand, weight, release, followers)


def _followers(dice: Dice, category: np.ndarray, brand: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(N, 4): two of the same category and brand where there are, one of the category, one of the next."""
    same = category[:, None] == category
    following = (category[:, None] + 1) % len(QUALITIES) == category
    like = 1 + FOLLOWER_BRAND * (brand[:, None] == brand)
    others = weight * ~np.eye(N_ITEMS, dtype=bool)
    relations = (same * like, same * like, same, following * like)
    return np.stack([dice.weighted(others * relation) for relation in relations], 1)


def _live(lengths: np.ndarray) -> np.ndarray:
    """(U, longest) True where a user makes a purchase."""
    return np.arange(max(LENGTHS)) < lengths[:, None]


def _calendar(dice: Dice, lengths: np.ndarray) -> np.ndarray:
    """(U, longest) the day of every purchase, counted back from each user's last day."""
    last = dice.below(N_DAYS, 4 * N_USERS).reshape(4, -1).max(0)  # the shop grows
    gaps = dice.pick(GAPS, N_USERS * max(LENGTHS)).reshape(N_USERS, -1) * _live(lengths)
    gaps[:, 0] = 0
    since_first = gaps.cumsum(1)
    return FIRST_DAY + (last - since_first[:, -1])[:, None] + since_first


def _simulate(dice: Dice, shop: Shop, days: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """(U, longest) the item of every purchase, 0 beyond a user's last."""
    favourite, stay = dice.below(len(BRANDS), N_USERS), dice.pick(STAYS, N_USERS)
    where, left = dice.below(len(QUALITIES), N_USERS), stay.copy()
    appeal = _appeal(shop)
    bought = np.zeros(days.shape, np.int64)
    unseen = np.ones((N_USERS, N_ITEMS), bool)
    for step in range(days.shape[1]):
        who = np.flatnonzero(lengths > step)  # (A,) users with a purchase to make
        moves = left[who] == 0
        where[who] = (where[who] + moves) % len(QUALITIES)
        left[who] = np.where(moves, stay[who], left[who]) - 1
        age = days[who, step, None] - shop.release  # (A, N)
        on_sale = unseen[who] & (age >= 0)
        browsed = dice.weighted(appeal[where[who], favourite[who]] * on_sale * np.where(age < NEW_DAYS, NEW_FACTOR, 1))
        follower = shop.followers[bought[who, step - 1], dice.pick(SUCCESSORS, len(who))]
        known = (step > 0) & on_sale[np.arange(len(who)), follower] & (shop.category[follower] == where[who])
        bought[who, step] = np.where(known & (dice.below(100, len(who)) < HABIT), follower, browsed)
        unseen[who, bought[who, step]] = False
    return bought


def _appeal(shop: Shop) -> np.ndarray:
    """(categories, brands, N) integer weights of what a user who browses a category and likes a brand buys."""
    of_category = np.where(shop.category == np.arange(len(QUALITIES))[:, None], CATEGORY_FACTOR, 1)
    of_brand = np.where(shop.brand == np.arange(len(BRANDS))[:, None], BRAND_FACTOR, 1)
    return shop.weight * of_category[:, None] * of_brand


def _describe(dice: Dice, shop: Shop, keys: np.ndarray) -> pd.DataFrame:
    """The item table: some brands and a few titles are missing, as in real catalogues."""
    quality, colour = dice.below(3, N_ITEMS), dice.below(len(COLOURS), N_ITEMS)
    size, gap = 1 + dice.below(40, N_ITEMS), dice.below(100, N_ITEMS)
    shelves = [(top, name, kinds) for top, inner in SHOP.items() for name, kinds in inner.items()]
    titles, paths = [], []
    for item, place in enumerate(shop.category):
        top, name, kinds = shelves[place]
        thing = kinds[shop.kind[item]]
        parts = (BRANDS[shop.brand[item]], QUALITIES[place][quality[item]], thing)
        titles.append(f"{' '.join(parts)}, {COLOURS[colour[item]]}, No. {size[item]}")
        paths.append(f"{top} > {name} > {thing}")
    brands = np.where(gap < 15, "", np.array(BRANDS)[shop.brand])
    titled = np.where(gap == 99, "", np.array(titles))
    table = {"item_id": keys, "title": titled, "brand": brands, "categories": paths}
    return pd.DataFrame(table, dtype=object)
