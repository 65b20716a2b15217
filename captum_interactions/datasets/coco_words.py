"""Tables of the words that name COCO's categories in captions. They are not part of COCO.

COCO does not link its captions to its objects. A word names a category if it is in
:data:`COCO_WORDS` and the image has an object of that category. Words are whole words in upper or
lower case; the table has singulars and irregular plurals, to which regular plurals are added. Of
words that overlap, the longest counts, so "hot dog" is not a dog. :data:`COCO_DECOYS` are longer
expressions in which a category's word means something else, or only a part of the object or a
place. :mod:`captum_interactions.datasets.coco_matching` checks the neighbouring words, with the
lists of :mod:`captum_interactions.datasets.coco_neighbours`.

Missing a mention is preferred to finding a false one: words that mostly mean something else are not
in the tables ("glasses", "monitor", "stand").
"""

from __future__ import annotations

from collections.abc import Mapping

from captum_interactions.datasets.words import plurals

_NOUNS: Mapping[str, str] = {
    "person": (
        "person, people, man, men, woman, women, boy, girl, child, children, kid, baby, babies, "
        "toddler, lady, guy, gentleman, gentlemen, adult, teenager, skier, snowboarder, surfer, "
        "skateboarder, biker, cyclist, motorcyclist, pedestrian, rider, batter, catcher, pitcher, "
        "umpire, baseball player, tennis player, soccer player, player, chef, policeman, "
        "policemen, police officer, soldier, student, worker, crowd, spectator, someone, somebody, "
        "bride, groom"
    ),
    "bicycle": "bicycle, bike",
    "car": "car, automobile, taxi, cab, suv, sedan, minivan, police car",
    "motorcycle": "motorcycle, motorbike, moped, scooter, motor bike, motor cycle, dirt bike",
    "airplane": (
        "airplane, plane, aeroplane, jet, airliner, aircraft, jetliner, air plane, jumbo jet, "
        "passenger jet, fighter jet, biplane"
    ),
    "bus": "bus, busses, double decker, double decker bus, school bus, minibus, tour bus, city bus",
    "train": (
        "train, locomotive, subway train, passenger train, freight train, steam engine, train "
        "engine, train car, tram, trolley"
    ),
    "truck": (
        "truck, pickup, lorry, lorries, fire truck, firetruck, pickup truck, pick up truck, dump "
        "truck, tow truck, food truck, garbage truck, semi truck, tractor trailer"
    ),
    "boat": (
        "boat, ship, sailboat, canoe, kayak, yacht, rowboat, ferry, sail boat, row boat, fishing "
        "boat, speedboat, motorboat, gondola"
    ),
    "traffic light": "traffic light, stoplight, stop light, traffic signal",
    "fire hydrant": "fire hydrant, hydrant",
    "stop sign": "stop sign",
    "parking meter": "parking meter",
    "bench": "bench, park bench",
    "bird": (
        "bird, seagull, pigeon, duck, goose, geese, parrot, owl, swan, eagle, pelican, ostrich, "
        "crow, sparrow, hawk, flamingo, peacock, rooster, hummingbird, gull, parakeet, canary"
    ),
    "cat": "cat, kitten, kitty",
    "dog": "dog, puppy, puppies, doggy",
    "horse": "horse, pony, foal",
    "sheep": "sheep, lamb, ewe",
    "cow": "cow, cattle, bull, calf, calves, ox, oxen",
    "elephant": "elephant",
    "bear": (
        "bear, panda, panda bear, polar bear, brown bear, black bear, grizzly, grizzly bear, bear "
        "cub"
    ),
    "zebra": "zebra",
    "giraffe": "giraffe",
    "backpack": "backpack, knapsack, back pack, rucksack",
    "umbrella": "umbrella, parasol",
    "handbag": "handbag, purse, hand bag, tote bag",
    "tie": "tie, necktie, bow tie, bowtie, neck tie",
    "suitcase": "suitcase, luggage, briefcase, suit case",
    "frisbee": "frisbee, frisby",
    "skis": "skis, ski, pair of skis",
    "snowboard": "snowboard, snow board",
    "sports ball": (
        "sports ball, ball, baseball, soccer ball, tennis ball, basketball, football, volleyball"
    ),
    "kite": "kite",
    "baseball bat": "baseball bat, bat",
    "baseball glove": "baseball glove, glove, mitt, catchers mitt, catcher's mitt, baseball mitt",
    "skateboard": "skateboard, skate board",
    "surfboard": "surfboard, surf board, boogie board",
    "tennis racket": "tennis racket, racket, racquet, tennis racquet",
    "bottle": "bottle, wine bottle, water bottle, beer bottle",
    "wine glass": "wine glass, wine glasses, wineglass, glass of wine, glasses of wine",
    "cup": "cup, mug, coffee cup, coffee mug, teacup",
    "fork": "fork",
    "knife": "knife, knives",
    "spoon": "spoon",
    "bowl": "bowl",
    "banana": "banana",
    "apple": "apple",
    "sandwich": "sandwich, sub, hamburger, burger, cheeseburger, panini",
    "orange": "orange, tangerine, mandarin, clementine",
    "broccoli": "broccoli",
    "carrot": "carrot",
    "hot dog": "hot dog, hotdog",
    "pizza": "pizza, slice of pizza, pizza slice",
    "donut": "donut, doughnut",
    "cake": "cake, cupcake, birthday cake, wedding cake, cheesecake",
    "chair": "chair, armchair, office chair, arm chair",
    "couch": "couch, sofa, loveseat, love seat",
    "potted plant": "potted plant, plant, houseplant, house plant",
    "bed": "bed",
    "dining table": "dining table, table, dinner table, kitchen table",
    "toilet": "toilet, urinal, commode",
    "tv": "tv, television, tv screen, television set, flat screen, flat screen tv",
    "laptop": "laptop, laptop computer, notebook computer",
    "mouse": "mouse, mice, computer mouse",
    "remote": "remote, remote control, wii remote, wii controller, game controller, controller",
    "keyboard": "keyboard, computer keyboard",
    "cell phone": "cell phone, cellphone, phone, smartphone, mobile phone, smart phone, iphone",
    "microwave": "microwave, microwave oven",
    "oven": "oven, stove, stovetop, stove top",
    "toaster": "toaster",
    "sink": "sink",
    "refrigerator": "refrigerator, fridge, freezer",
    "book": "book",
    "clock": "clock",
    "vase": "vase",
    "scissors": "scissors, pair of scissors, shears",
    "teddy bear": "teddy bear, teddy, stuffed bear, stuffed animal",
    "hair drier": "hair drier, hair dryer, blow dryer, hairdryer, blow drier",
    "toothbrush": "toothbrush, tooth brush",
}
"""Singulars and irregular plurals, by category."""

_IRREGULAR = (
    "man, woman, child, gentleman, policeman, goose, calf, ox, knife, mouse, luggage, broccoli, "
    "aircraft"
)
"""Singulars, and nouns without a number, that take no regular plural."""

_PLURAL = (
    "people, men, women, children, babies, gentlemen, policemen, someone, somebody, busses, "
    "lorries, geese, puppies, cattle, calves, oxen, sheep, skis, knives, mice, scissors, shears, "
    "pair of scissors, pair of skis, wine glasses, glass of wine, glasses of wine, slice of pizza, "
    "catchers mitt, catcher's mitt"
)
"""The rest of those that take no regular plural."""

_GAMES = ("frisbee", "baseball", "basketball", "football", "volleyball")
_PLAY = ("play", "plays", "playing", "played", "game of", "match of", "ultimate")

_MISLEADING = (
    # What its last word names is, or may be, of a category too.
    "car seat, truck bed, truck cab, cat bed, dog bed, flower bed, oven mitt, oven glove, banana "
    "boat, toilet bowl, sink bowl, cement bowl, skate bowl, super bowl, toaster oven, note book, "
    "phone book, check book, book case, wheel chair, chair lift, power plant, jet ski, cable car, "
    "street car, trolley car, rail car, railroad car, box car, freight car, subway car, passenger "
    "car, dining car, golf car, shopping trolley, luggage trolley, pool table, ping pong table, "
    "billiard table, changing table, operating table, boxing glove, rubber glove, railroad tie, "
    "pay phone, work bench, bench press, fork lift, cup cake, pan cake, cd player, dvd player, "
    "record player, mp3 player, music player, media player, dream catcher, cake batter, pancake "
    "batter, water pitcher, bed room, bird's eye, birds eye, plant life, "
    # Its last word says too little to be among coco_neighbours.HEADS.
    "train stop, man hole, baby blue, baby corn, baby shower, baby goat, baby deer, men's room, "
    "men's restroom, men's bathroom, women's room, women's restroom, women's bathroom, children's "
    "book, children's toy, luggage claim, carrot cake, banana bread, banana split, apple pie, "
    "sheep dog, sheep pen, sheep farm, sheep skin, sheep herder, tie dye, table tennis, table "
    "cloth"
)

COCO_ANIMALS = (
    "bird",
    "cat",
    "dog",
    "horse",
    "sheep",
    "cow",
    "elephant",
    "bear",
    "zebra",
    "giraffe",
)
"""Categories of animals."""
_AGES = ("", "baby ", "adult ")  # a baby giraffe is no baby


def _forms(category: str, nouns: str) -> frozenset[str]:
    uncounted = f"{_IRREGULAR}, {_PLURAL}".split(", ")
    forms = [
        form
        for noun in nouns.split(", ")
        for form in ((noun,) if noun in uncounted else plurals(noun))
    ]
    ages = _AGES if category in COCO_ANIMALS else ("",)
    return frozenset(age + form for form in forms for age in ages)


COCO_WORDS: Mapping[str, frozenset[str]] = {
    category: _forms(category, nouns) for category, nouns in _NOUNS.items()
}
"""Every word that names a category, by category, in lower case."""

COCO_SINGULARS = frozenset(_IRREGULAR.split(", "))
"""Singulars without a regular plural."""

COCO_DECOYS = frozenset(
    (
        *(form for noun in _MISLEADING.split(", ") for form in plurals(noun)),
        *(f"{verb} {game}" for verb in _PLAY for game in _GAMES),
        *("at bat", "up to bat", "pitcher of", "bed of", "man made", "tie dyed", "snow man"),
        *("snow men", "gingerbread man", "gingerbread men"),
    )
)
"""Expressions with a category's word in them that do not name such an object."""
