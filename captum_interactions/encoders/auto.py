"""Wrap a model, or load and wrap a model by its name."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from captum_interactions.encoders.families.dual_models import (
    blip_retrieval_towers,
    dual_towers,
    is_blip_retrieval,
    is_dual_model,
)
from captum_interactions.encoders.families.flava import flava_towers, is_flava
from captum_interactions.encoders.families.multi_vector import (
    is_multi_vector,
    multi_vector_wrapper,
)
from captum_interactions.encoders.families.open_clip import is_open_clip, open_clip_towers
from captum_interactions.encoders.families.page_retrieval import (
    is_page_retriever,
    page_wrapper,
)
from captum_interactions.encoders.families.sentence_transformers import (
    dual_inside,
    is_sentence_model,
    routes,
    sentence_tower,
)
from captum_interactions.encoders.families.single_models import is_single_model, single_tower
from captum_interactions.encoders.families.timm import is_timm, timm_tower
from captum_interactions.encoders.model.placement import check_placement
from captum_interactions.encoders.model.pooling import Pooling
from captum_interactions.encoders.towers.base import Tower
from captum_interactions.encoders.towers.callable_tower import CallableTower
from captum_interactions.encoders.wrapper import DualEncoderWrapper
from captum_interactions.hub import locate_model

_DUAL: list[tuple[Callable[[Any], bool], Callable[[Any, Any], tuple[Tower, Tower]]]] = [
    (is_dual_model, dual_towers),
    (is_blip_retrieval, blip_retrieval_towers),
    (is_open_clip, open_clip_towers),
    (is_flava, flava_towers),
]
"""(predicate of a kind of model, function that builds its towers), tried in order."""

_SOURCE_OPTIONS = ("revision", "token", "cache_dir", "local_files_only", "trust_remote_code")
"""Loading options that apply to the model and to the processor."""

_PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json")
"""Files that a processor is loaded from."""

_SENTENCE_CLASSES = {
    "SparseEncoder": "SparseEncoder",
    "MultiVectorEncoder": "MultiVectorEncoder",
    "ColBERT": "MultiVectorEncoder",
}
"""Classes of ``sentence-transformers`` by what a model's config says that it is."""

_CAPTUM = "Captum's own methods explain such a score: from captum.attr import FeatureAblation"
_TEXTS = "Pairs of texts can be explained: wrap(model.text_model)"
_MIXED = ("its layers mix both inputs", _CAPTUM)

_NOT_DUAL = {
    "CrossEncoder": ("it reads both inputs as one text", _CAPTUM),
    "ViltModel": _MIXED,
    "ViltForImageAndTextRetrieval": _MIXED,
    "VisualBertModel": _MIXED,
    "LxmertModel": ("it mixes both inputs by cross-attention", _CAPTUM),
    "BlipForConditionalGeneration": (
        "it is a generative model. Load a checkpoint of BlipForImageTextRetrieval instead",
        "Pairs of images can be explained: wrap(model.vision_model)",
    ),
    "BlipForQuestionAnswering": ("its text encoder attends to the image", _CAPTUM),
    "Blip2ForImageTextRetrieval": (
        "its score is the largest of many, one a query token",
        "Pairs of images can be explained: wrap(model.vision_model)",
    ),
    "Blip2Model": (
        "its language model reads the image",
        "Pairs of images can be explained: wrap(model.vision_model)",
    ),
    "XCLIPModel": ("its embedding of a text depends on the video", _TEXTS),
    "PeAudioModel": ("its first input is a waveform, which no tower here takes", _TEXTS),
    "PeVideoModel": ("its first input is a video, which no tower here takes", _TEXTS),
    "PeAudioVideoModel": (
        "its first input is a video with sound, which no tower here takes",
        "Pairs of texts can be explained: wrap(model.audio_model.text_model)",
    ),
    "VideoPrismClipModel": ("its first input is a video, which no tower here takes", _TEXTS),
}
"""Unsupported models: the reason, and the alternative."""


def wrap(
    model: Any,
    processor: Any = None,
    *,
    pooling: Pooling | None = None,
    prompts: tuple[str | None, str | None] | None = None,
) -> DualEncoderWrapper:
    """Wrap a dual encoder for explanation. The model is not modified.

    Args:
        model: One of

            - a dual encoder of ``transformers`` (CLIP, SigLIP, ALIGN, CLAP, BLIP's retrieval head,
              ... see :doc:`/models`), of ``open_clip`` or of OpenAI's ``clip``;
            - a single encoder, for pairs of the same kind: a ``SentenceTransformer``, or a text or
              vision model of ``transformers``;
            - a model with an embedding for each token, whose score is a sum of best matches: a
              ``MultiVectorEncoder``, or ColPali or ColQwen2 of ``transformers`` with its processor.
              It becomes a :class:`~captum_interactions.encoders.LateInteractionWrapper`;
            - a pair of encoders: single ones, :class:`~captum_interactions.encoders.Tower`, or
              callables and modules that map a batch of real-valued tensors to embeddings (B, K).
              The latter are explained at their inputs, with baselines of zeros.

            Models wrapped by ``torch.compile``, PEFT or ``DataParallel`` are unwrapped first.
        processor (optional): The model's processor, for raw inputs: a processor, tokenizer, image
            processor or feature extractor of ``transformers``, or a tuple of one for each side; for
            ``open_clip`` a tuple of transforms and tokenizer. Default: None, which asks for ready
            tensors
        pooling (str, optional): How single models of ``transformers`` make one embedding:
            ``"cls"``, ``"last"``, ``"mean"`` or ``"pooler"``. Default: their projected embedding if
            they have one; else for texts ``"mean"``, or ``"pooler"`` for a part of CLIP, SigLIP or
            DPR; for images ``"cls"`` if there is a class token, or else ``"pooler"`` if the model
            has one, or else ``"mean"``
        prompts (tuple, optional): Names of the prompts that a ``SentenceTransformer`` puts before
            texts a and b, such as ``("query", "document")``. Default: the model's own default, or
            for a ``MultiVectorEncoder`` the prompts of its own two encoding methods

    Returns:
        DualEncoderWrapper: the wrapper. If the model's config has a ``captum_interactions`` entry
        with ``default_layers`` or ``default_n_steps``, these become the wrapper's.

    Raises:
        TypeError: If the model is not supported, or does not take an option.
        ValueError: If the pooling or the prompt is unknown.

    Examples::

        >>> import torch
        >>> wrapper = wrap((torch.nn.Linear(4, 3), torch.nn.Linear(5, 3)))
        >>> wrapper.default_layers
        ('input', 'input')
    """
    if isinstance(model, DualEncoderWrapper):
        return model
    model = _bare(model)
    for part in model if isinstance(model, tuple) else (model,):
        check_placement(part)
    if is_multi_vector(model):
        _refuse(f"{type(model).__name__}, which has its own", pooling=pooling)
        return multi_vector_wrapper(model, prompts)
    if is_page_retriever(model):
        _refuse(type(model).__name__, pooling=pooling, prompts=prompts)
        return page_wrapper(model, processor)
    if is_sentence_model(model):
        inside, pair = dual_inside(model), routes(model)
        if inside is not None:
            return wrap(inside[0], processor or inside[1], pooling=pooling, prompts=prompts)
        if pair is not None:
            return wrap(pair, processor, pooling=pooling, prompts=prompts)
    for matches, make_towers in _DUAL:
        if matches(model):
            _refuse(type(model).__name__, pooling=pooling, prompts=prompts)
            settings = dict(getattr(getattr(model, "config", None), "captum_interactions", {}))
            if "default_layers" in settings:
                settings["default_layers"] = tuple(settings["default_layers"])
            return DualEncoderWrapper(*make_towers(model, processor), **settings)
    _refuse_other_scores(type(model).__name__)
    is_pair = isinstance(model, tuple) and len(model) == 2
    if is_pair and not any(isinstance(m, type) or not callable(m) for m in model):
        processors = processor if isinstance(processor, tuple) else (processor, processor)
        names = prompts or (None, None)
        return DualEncoderWrapper(
            _tower(0, _bare(model[0]), processors[0], pooling, names[0]),
            _tower(1, _bare(model[1]), processors[1], pooling, names[1]),
        )
    if is_sentence_model(model) or is_single_model(model) or is_timm(model):
        return wrap((model, model), processor, pooling=pooling, prompts=prompts)
    if isinstance(model, str):
        raise TypeError(f"wrap takes a model, but got a name: from_pretrained({model!r}) loads it")
    raise TypeError(
        f"{type(model).__name__} is not a dual encoder of a known kind (of transformers, open_clip "
        "or clip), a SentenceTransformer, or a text or vision model of transformers. Wrap any "
        "other dual encoder as a pair of callables on real-valued tensors, "
        "wrap((encode_a, encode_b)), or give each side a Tower: a TextTower or an ImageTower needs "
        "a function that runs the model, and the names of its blocks"
    )


def from_pretrained(name_or_path: str | Path, **kwargs: Any) -> DualEncoderWrapper:
    """Load a model and its processor, and wrap them.

    A directory or repository with a ``modules.json`` is loaded with ``sentence-transformers``, all
    others with ``transformers``.

    Args:
        name_or_path (str or Path): A name on the model hub, or a local directory.
        kwargs: ``pooling`` and ``prompts`` go to :func:`wrap`, everything else, such as ``dtype``
            or ``revision``, to the loader of the model.

    Returns:
        DualEncoderWrapper: the wrapped model, in eval mode.

    Raises:
        OSError: If nothing is found under that name, or the model is not in the cache of downloads
            and the hub cannot be reached.
        TypeError: If what is found is not a dual encoder.
        ImportError: If a package is missing that the model needs.
    """
    options = {key: kwargs.pop(key) for key in ("pooling", "prompts") if key in kwargs}
    if locate_model(name_or_path, **kwargs) == "cache":
        kwargs["local_files_only"] = True
    if _cached_file(name_or_path, "modules.json", kwargs) is not None:
        return wrap(_load_sentence_model(name_or_path, kwargs), **options)

    import transformers
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModel, AutoProcessor

    source = {key: value for key, value in kwargs.items() if key in _SOURCE_OPTIONS}
    try:
        config = AutoConfig.from_pretrained(name_or_path, **source)
        name, *_ = getattr(config, "architectures", None) or [""]
        _refuse_other_scores(name)
        # The auto class may return a related class, such as one without the projection.
        is_head = re.search("For[A-Z]|LMHead", name) and not name.endswith("Retrieval")
        loader = AutoModel if is_head else getattr(transformers, name, AutoModel)
        model, report = loader.from_pretrained(name_or_path, output_loading_info=True, **kwargs)
        missing = sorted(key for key in report["missing_keys"] if "pooler" not in key)
        if missing:
            raise OSError(f"the files lack {len(missing)} of its tensors, such as {missing[0]}")
    except (OSError, ValueError, SafetensorError) as error:
        raise OSError(f"no model could be loaded from {str(name_or_path)!r}: {error}") from error
    try:
        processor = AutoProcessor.from_pretrained(name_or_path, **source)
    except (OSError, ValueError) as error:
        wrap(model, **options)  # if it is not a dual encoder, report that
        reason = str(error)
        folder = Path(name_or_path)
        if folder.is_dir() and not any((folder / name).exists() for name in _PROCESSOR_FILES):
            reason = "the folder has no processor; save it there with processor.save_pretrained()"
        raise OSError(
            f"no processor could be loaded from {str(name_or_path)!r}: {reason} (in Python, "
            "wrap(model, processor) takes one of your own)"
        ) from error
    return wrap(model.eval(), processor, **options)


def _tower(
    side: int, part: Any, processor: Any, pooling: Pooling | None, prompt: str | None
) -> Tower:
    """The tower of a single encoder, or the tower of this side of a dual encoder."""
    inside = dual_inside(part) if is_sentence_model(part) else None
    if inside is not None:
        part, processor = inside[0], processor or inside[1]
    for matches, make_towers in _DUAL:
        if matches(part):
            _refuse(type(part).__name__, pooling=pooling, prompts=prompt)
            return make_towers(part, processor)[side]
    if is_sentence_model(part):
        _refuse_other_scores(type(part).__name__)
        _refuse("a SentenceTransformer, which has its own", pooling=pooling)
        return sentence_tower(part, prompt)
    _refuse(type(part).__name__, prompts=prompt)
    if is_timm(part):
        _refuse(f"{type(part).__name__}, which has its own", pooling=pooling)
        return timm_tower(part, processor)
    if isinstance(part, nn.Module) and not isinstance(part, Tower) and is_single_model(part):
        return single_tower(part, processor, pooling)
    _refuse(type(part).__name__, pooling=pooling)
    return part if isinstance(part, Tower) else CallableTower(part)


def _refuse_other_scores(name: str) -> None:
    if name in _NOT_DUAL:
        reason, alternative = _NOT_DUAL[name]
        raise TypeError(f"{name} is not a supported dual encoder: {reason}. {alternative}")


def _refuse(what: str, **options: Any) -> None:
    for name, value in options.items():
        if value is not None:
            raise TypeError(f"{name}={value!r} is not for {what}")


def _bare(model: Any) -> Any:
    """The model inside of the wrappers of torch.compile, PEFT and data parallelism."""
    if hasattr(model, "_orig_mod"):
        return _bare(model._orig_mod)
    if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        return _bare(model.module)
    if hasattr(model, "get_base_model") and hasattr(model, "peft_config"):
        if getattr(model.active_peft_config, "is_prompt_learning", False):
            raise TypeError(
                f"{type(model).__name__} has learned prompts, which are not part of the wrapped "
                "base model"
            )
        return _bare(model.get_base_model())
    return model


def _cached_file(name_or_path: str | Path, name: str, options: dict[str, Any]) -> Path | None:
    """Where a file of a model is on this disk, downloaded if need be; None if there is none."""
    from transformers.utils.hub import cached_file

    source = {key: value for key, value in options.items() if key in _SOURCE_OPTIONS}
    source.pop("trust_remote_code", None)
    try:
        found = cached_file(
            str(name_or_path),
            name,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_connection_errors=False,
            **source,
        )
    except OSError:
        return None
    return None if found is None else Path(found)


def _load_sentence_model(name_or_path: str | Path, options: dict[str, Any]) -> Any:
    try:
        import sentence_transformers
    except ImportError as error:
        raise ImportError(
            f"{str(name_or_path)!r} is a model of sentence-transformers: install it with "
            "pip install 'captum-interactions[sentence-transformers]'"
        ) from error
    config = _cached_file(name_or_path, "config_sentence_transformers.json", options)
    kind = None if config is None else json.loads(config.read_text("utf-8")).get("model_type")
    # Another class than the model's own would replace what follows its transformer.
    name = _SENTENCE_CLASSES.get(str(kind), "SentenceTransformer")
    loader = getattr(sentence_transformers, name, None)
    if loader is None:
        raise ImportError(
            f"{str(name_or_path)!r} is a {name}, which sentence-transformers "
            f"{sentence_transformers.__version__} does not have: install a newer version"
        )
    own = {name: options.pop(name) for name in ("dtype", "torch_dtype") if name in options}
    settings = {**options.pop("model_kwargs", {}), **own}
    return loader(str(name_or_path), model_kwargs=settings or None, **options)
