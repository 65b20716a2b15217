"""Lists of words beside a word of COCO's table, see :mod:`.coco_matching`."""

from __future__ import annotations

from captum_interactions.datasets.coco_words import COCO_ANIMALS
from captum_interactions.datasets.words import plurals


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


HEADS = frozenset(
    form
    for noun in _words(
        "arena attendant bag bar barn basin basket bell booth box brush building bun cabinet cage "
        "cap carousel carriage carrier cart case center chain charger clip cloth collar company "
        "competition compartment computer cone conductor container contest cord cork costume "
        "counter court crate crossing crust cutter dealership deck depot diamond dispenser dock "
        "door dough driver dropping enclosure engine equipment event exhibit farm faucet feeder "
        "festival field floor frame game garage hall hangar harbor hat helmet holder hood house "
        "jacket juice key kit lamp lane leaf leash lid lift litter logo lot machine magnet maker "
        "market mask meet mirror motor museum opener outfit pad palace pan pants parlor party "
        "pasture path pattern pen pillow platform pole pound rack railing ramp resort restaurant "
        "road roof room route saddle sanctuary sauce seat seed shelf shirt sign skin slope soup "
        "stable stadium stall station statue store suit table tank team terminal ticket tile tire "
        "tissue toilet tower toy track trailer tray tree trunk tunnel uniform vendor wagon "
        "wallpaper wheel window wing yard"
    )
    for form in plurals(noun)
) | _words(
    # In the plural these are verbs: "the bus stops".
    "area back cave cover display drain food gear handle light line mark nest paper park parking "
    "pass peel place post print race rail ride roll screen service shape sheet shelter shop "
    "show slip stand stop string tag tail trail trick wash drawn shaped sized themed printed style "
    "friendly free leaves shelves"
)
"""Nouns that a singular directly before them describes: "toothbrush holder", "car trunk"."""

LIVING = frozenset(("person", *COCO_ANIMALS))
"""Categories of people and animals, whose names may be followed by a verb."""

VERBS = frozenset(
    form
    for verb in _words(
        "ski skateboard snowboard surfboard bike bicycle kayak canoe bat kite tie boat"
    )
    for form in plurals(verb)
)
"""Words that are verbs directly after the name of a person or animal."""

PRONOUNS = _words("who he she they we you")
"""Words after which :data:`VERBS` are verbs, too."""

TWOFOLD = _words("orange remote ski baseball basketball football volleyball")
"""Words that mostly describe the next word, or name a colour or a game."""

DETERMINED = _words(
    "a an the his her their its one another each this that single white small large round whole "
    "half peeled sliced cut fresh ripe"
)
"""Words after which a word of :data:`TWOFOLD` may name an object."""

NO_NOUNS = _words(
    "and or but with without in on at of from to by near next under over above below behind beside "
    "between inside into onto off up down for during while as after before that which is are was "
    "has being he she they it his her their sitting laying lying resting hanging growing flying "
    "coming going toward towards through across against along"
)
"""Words that the word before them does not describe."""

COLOURS = _words(
    "red green blue yellow white black brown purple pink gray grey tan gold silver beige teal"
)
