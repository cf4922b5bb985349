"""Every kind of object, by name: a function from a `Draw` to the parts of one object, front along +X, Z up."""

from __future__ import annotations

from collections.abc import Callable

from ..draw import Draw
from ..solids import Part
from . import (
    animals,
    birds,
    blob,
    buildings,
    craft,
    figures,
    furniture,
    gear,
    household,
    land_vehicles,
    nature,
    regalia,
    towers,
    toys,
    treats,
    vessels,
)

# The order is part of what a seed means: `make_object` draws a kind by its place here.
KINDS: dict[str, Callable[[Draw], list[Part]]] = {
    "mug": vessels.mug, "chair": furniture.chair, "lamp": household.lamp, "table": furniture.table,
    "bottle": vessels.bottle, "vase": vessels.vase, "teapot": vessels.teapot, "goblet": vessels.goblet,
    "bed": furniture.bed, "sofa": furniture.sofa, "bookshelf": furniture.bookshelf, "bucket": vessels.bucket,
    "candle": household.candle, "clock": household.clock, "television": household.television,
    "umbrella": household.umbrella, "stool": furniture.stool,
    "car": land_vehicles.car, "truck": land_vehicles.truck, "bus": land_vehicles.bus, "train": land_vehicles.train,
    "plane": craft.plane, "helicopter": craft.helicopter, "boat": craft.boat, "rocket": craft.rocket,
    "submarine": craft.submarine, "tractor": land_vehicles.tractor,
    "tree": nature.tree, "cactus": nature.cactus, "mushroom": nature.mushroom, "flower": nature.flower,
    "apple": nature.apple, "pear": nature.pear, "carrot": nature.carrot, "pumpkin": nature.pumpkin,
    "duck": birds.duck, "snowman": figures.snowman, "robot": figures.robot, "cat": animals.cat, "dog": animals.dog,
    "bird": birds.bird, "fish": animals.fish, "turtle": animals.turtle, "bear": animals.bear,
    "person": figures.person, "caterpillar": animals.caterpillar, "penguin": birds.penguin,
    "house": buildings.house, "tower": towers.tower, "castle": towers.castle, "lighthouse": towers.lighthouse,
    "windmill": towers.windmill, "barn": buildings.barn, "church": buildings.church, "well": buildings.well,
    "tent": buildings.tent, "bridge": buildings.bridge,
    "dumbbell": gear.dumbbell, "cake": treats.cake, "gift": treats.gift, "hammer": gear.hammer, "drum": toys.drum,
    "crown": regalia.crown, "hat": regalia.hat, "ice cream": treats.ice_cream, "spinning top": toys.spinning_top,
    "trophy": regalia.trophy, "key": gear.key, "sword": gear.sword, "stacked blocks": toys.stacked_blocks,
    "blob": blob.blob, "pyramid rings": toys.pyramid_rings, "barrel": gear.barrel, "ball": toys.ball,
}  # fmt: skip
